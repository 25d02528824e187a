"""The process as the pod starts it, against a fake source."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.fetch import main as main_module
from stoker.fetch.config import CONFIG_VARIABLE, FetchConfig
from stoker.fetch.main import main, retry_until_fetched
from stoker.fetch.progress import ProgressReport


class Recorded(ProgressReport):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.phases: list[str] = []

    def phase(self, phase: Any, **fields: str) -> None:
        self.phases.append(phase)
        super().phase(phase, **fields)


def environment(config: FetchConfig) -> dict[str, str]:
    files = [{"name": file.name, "url": file.url, "sha256": file.sha256} for file in config.files]
    document = {
        "digest": config.digest,
        "files": files,
        "cache": str(config.cache),
        "progressFile": str(config.progress_file),
    }
    return {CONFIG_VARIABLE: json.dumps(document)}


def command(config: FetchConfig) -> subprocess.Popen[str]:
    package_root = str(Path(main_module.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "stoker", "fetch"],
        env=os.environ | environment(config) | {"PYTHONPATH": package_root, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def progress(config: FetchConfig) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(config.progress_file.read_text())
    return document


def test_the_process_fetches_logs_lines_of_json_and_says_done(
    fake_source: Any, make_config: Callable[..., FetchConfig]
) -> None:
    config = make_config(sha256=None)
    process = command(config)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [json.loads(line)["event"] for line in output.splitlines()][-1] == "done"
    assert progress(config)["phase"] == "Done"
    assert (config.folder / "model.gguf").read_bytes() == fake_source.files["model.gguf"]


def test_weights_that_are_there_end_the_process_within_a_second(make_config: Callable[..., FetchConfig]) -> None:
    config = make_config(sha256=None)
    command(config).communicate(timeout=120)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = command(config)
    process.communicate(timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0
    # Of CPU: how long that takes on the clock is a matter of what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_stopped_process_keeps_its_part_and_the_next_one_goes_on(
    fake_source: Any, make_config: Callable[..., FetchConfig]
) -> None:
    whole = fake_source.files["model.gguf"]
    reached, go_on = threading.Event(), threading.Event()
    # The connection stays open but sends only half, so the process is sure to be in the middle of the body.
    fake_source.answer(cut_after=len(whole) // 2, after_body=lambda: (reached.set(), go_on.wait(60)))
    config = make_config(sha256=None)
    process = command(config)
    assert reached.wait(60)
    wait_until(lambda: (config.partial / "model.gguf").stat().st_size > 0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    go_on.set()
    assert process.returncode == 143, output
    assert (config.partial / "model.gguf").exists()
    process = command(config)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert int(fake_source.gets[1].headers["range"].removeprefix("bytes=").rstrip("-")) > 0
    assert (config.folder / "model.gguf").read_bytes() == whole


def test_a_refused_file_stays_failed_without_flicker_until_it_is_mended(
    fake_source: Any, make_config: Callable[..., FetchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    good = fake_source.files["model.gguf"]
    fake_source.files["model.gguf"] = b"<html>"

    def mend() -> None:
        fake_source.files["model.gguf"] = good

    fake_source.answer()
    fake_source.answer()
    fake_source.answer(before_body=mend)
    report = Recorded(config.progress_file)
    retry_until_fetched(config, report, first_delay=0.01, failed_delay=0.01, settle=0)
    assert report.phases == ["Failed", "Failed", "Failed", "Downloading"]
    assert main_module.TERMINATION_LOG.read_text().startswith("NotGGUF: ")
    assert (config.folder / "model.gguf").read_bytes() == good


def test_a_wrong_sum_costs_the_file_once_and_then_its_headers(
    fake_source: Any, make_config: Callable[..., FetchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(sha256="0" * 64)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise SystemExit(143)

    monkeypatch.setattr(main_module.time, "sleep", lambda seconds: pause(seconds) if seconds else None)
    report = Recorded(config.progress_file)
    with pytest.raises(SystemExit):
        retry_until_fetched(config, report, failed_delay=30, settle=0)
    assert pauses == [30, 30, 30]
    assert report.phases == ["Downloading", "Verifying", "Failed", "Failed", "Failed"]
    assert progress(config)["reason"] == "ChecksumMismatch"
    assert not (config.partial / "model.gguf").exists()


def test_a_configuration_that_cannot_be_used_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "{}")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main() == 1
    assert main_module.TERMINATION_LOG.read_text().startswith("InvalidConfiguration: ")


def test_a_folder_that_cannot_be_written_says_whose_it_must_be(make_config: Callable[..., FetchConfig]) -> None:
    from stoker.fetch.cache import explain_os_error

    config = make_config()
    found = explain_os_error(PermissionError(13, "Permission denied"), config.cache)
    assert found.reason == "CacheNotWritable"
    assert str(os.getuid()) in found.message


def wait_until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Another process is watched here, which offers no event to await."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    pytest.fail("it did not happen in time")
