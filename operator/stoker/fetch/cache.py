"""Brings a whole model into the cache: one writer at a time, all files or none."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from stoker.errors import Stalled, StokerError, Waiting
from stoker.fetch.config import FetchConfig
from stoker.fetch.inspection import inspect_cached, inspect_place, inspect_source
from stoker.fetch.lock import CacheLock
from stoker.fetch.part import hash_file
from stoker.fetch.progress import ProgressReport
from stoker.fetch.state import STATE_FILE, CacheState

if TYPE_CHECKING:
    from stoker.fetch.download import Download

RESUME_DELAY = 1.0

log = structlog.get_logger("fetch")


def is_cached(config: FetchConfig) -> bool:
    """Whether the weights are there, with the sums that are asked for now."""
    if not _all_there(config):
        return False
    state = CacheState(config.folder)
    return all(not file.sha256 or state.file(file.name, file.url).sha256 == file.sha256 for file in config.files)


def fetch_model(config: FetchConfig, report: ProgressReport, lock: CacheLock) -> None:
    """One attempt; what is on disk after a failed one is taken up by the next."""
    if config.look != "Download":
        try:
            inspect_place(config, report)
        except OSError as error:
            # The engine may be another user, and be allowed to read it.
            log.warning("the model cannot be looked at", place=config.place, error=str(error))
        return
    if is_cached(config):
        _inspect(config, report)
        return
    try:
        config.cache.mkdir(parents=True, exist_ok=True)
        with lock:
            lock.holder_progress = lambda: (report.current.completed_bytes, report.current.total_bytes)
            if lock.acquire(lambda *holder: _report_wait(report, *holder), lambda: is_cached(config)):
                _write_model(config, report, lock)
        # Also where the source was asked before: what it sent since then is what the engine gets.
        _inspect(config, report)
    except OSError as error:
        raise explain_os_error(error, config.cache) from error


def _inspect(config: FetchConfig, report: ProgressReport) -> None:
    if config.fit is not None:
        inspect_cached(config, report)


def explain_os_error(error: OSError, cache: Path) -> StokerError:
    """What the disk said, with what to do about it; all of it can be mended outside, so it is tried again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Waiting("DiskFull", f"the cache {cache} is full: {_space_step()}", retry_after=0)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Waiting(
            "CacheNotWritable",
            f"the cache {cache} cannot be written by user {os.getuid()} ({error.strerror}): a HostPath folder must belong to that user, a volume must not be read-only",
            retry_after=0,
        )
    return Waiting(
        "CacheUnavailable",
        f"the cache {cache} does not work ({error.strerror or error}): check the volume",
        retry_after=0,
    )


def _write_model(config: FetchConfig, report: ProgressReport, lock: CacheLock) -> None:
    if _all_there(config):
        _verify_cached(config, report)
        return
    # Imported late: weights that are there already should not cost the time to load an HTTP library.
    from stoker.fetch.download import Download
    from stoker.fetch.source import open_client

    if config.folder.exists() and not config.partial.exists():
        # Somebody deleted a file from the finished folder: the rest of it is still good.
        os.rename(config.folder, config.partial)
    config.partial.mkdir(exist_ok=True)
    state = CacheState(config.partial)
    with open_client() as client:
        if config.fit is not None:
            inspect_source(client, config, report)
        downloads = [Download(client, file, config.partial, state, config.token) for file in config.files]
        if len(downloads) > 1:
            for download in downloads:
                download.learn_length()
        for download in downloads:
            on_bytes = _sum_over(report, downloads, download)
            may_start = partial(_require_space, config, downloads)
            _download_through_cuts(download, report, partial(download.run, report, on_bytes, may_start, lock.check))
    if not lock.owned_now():
        raise Waiting("LockLost", "another pod has taken over this download", retry_after=1.0)
    _publish(config)


def _download_through_cuts(download: Download, report: ProgressReport, run: Callable[[], None]) -> None:
    """Go on at once, lock and running sum kept, as long as each connection brings bytes before it breaks."""
    while True:
        before = download.on_disk
        try:
            run()
        except Waiting as obstacle:
            if obstacle.reason != "SourceInterrupted" or download.on_disk <= before:
                raise
            report.phase("Retrying", file=report.current.file, reason=obstacle.reason, message=obstacle.message)
            time.sleep(RESUME_DELAY)
        else:
            return


def _sum_over(report: ProgressReport, downloads: list[Download], current: Download) -> Callable[[int], None]:
    """Progress counts the whole model, not the file of the moment."""
    others = sum(download.on_disk for download in downloads if download is not current)

    def on_bytes(completed: int) -> None:
        lengths = [download.length for download in downloads]
        total = None if None in lengths else sum(length for length in lengths if length is not None)
        report.bytes(others + completed, total)

    return on_bytes


def _require_space(config: FetchConfig, downloads: list[Download]) -> None:
    missing = sum(max(0, download.length - download.on_disk) for download in downloads if download.length is not None)
    # What lies behind the synced offset is cut off before it is written again, so it counts as free.
    free = shutil.disk_usage(config.partial).free + sum(download.unsynced for download in downloads)
    if missing > free:
        raise Waiting(
            "DiskFull",
            f"the cache {config.cache} has {free / 1e9:.1f} GB free and {missing / 1e9:.1f} GB are missing: {_space_step()}",
            retry_after=0,
        )


def _space_step() -> str:
    return "enlarge cache.size of the InferenceEngine, or delete weights that nobody needs"


def _publish(config: FetchConfig) -> None:
    _sync_folder(config.partial)
    if config.folder.exists():
        # An incomplete folder that came back while this one was written.
        shutil.rmtree(config.folder)
    os.rename(config.partial, config.folder)
    _sync_folder(config.cache)


def _verify_cached(config: FetchConfig, report: ProgressReport) -> None:
    """The weights were fetched without a sum and one is asked for now."""
    state = CacheState(config.folder)
    for file in config.files:
        known = state.file(file.name, file.url)
        if not file.sha256 or known.sha256 == file.sha256:
            continue
        path = config.folder / file.name
        size = path.stat().st_size
        report.phase("Verifying", file=file.name, message="weights that are already in the cache")
        found = hash_file(path, size, lambda done, size=size: report.bytes(done, size)).hexdigest()  # type: ignore[misc]
        if found != file.sha256:
            raise Stalled(
                "ChecksumMismatch",
                f"{file.name} in the cache has sha256 {found}, but source.sha256 says {file.sha256}: correct the sum, or delete {config.folder} from the cache to fetch it anew",
            )
        known.sha256 = found
        state.save()


def _all_there(config: FetchConfig) -> bool:
    return all((config.folder / file.name).is_file() for file in config.files) and (config.folder / STATE_FILE).exists()


def _report_wait(report: ProgressReport, host: str, completed: int, total: int | None) -> None:
    if report.current.phase != "Waiting" or not report.current.message:
        report.phase("Waiting", message=f"{host} downloads the same weights into the shared cache")
    report.bytes(completed, total)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
