"""Looks into the model's header before gigabytes are fetched, and says so when it cannot fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from stoker.errors import Stalled, StokerError, Waiting
from stoker.fetch.config import FetchConfig, SourceFile
from stoker.fetch.progress import ProgressReport
from stoker.models.facts import BadModelError, ModelFacts
from stoker.models.fit import compute_fit, explain_misfit
from stoker.models.gguf import MAGIC, MAX_HEADER, GgufHeader, GgufParser
from stoker.models.gguf_facts import facts_of

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("fetch")

PIECE = 1 << 18
HOLD_SECONDS = 30.0


def inspect_source(client: httpx.Client, config: FetchConfig, report: ProgressReport) -> None:
    """Read the headers from the source, each with a request of its own that is ended as soon as the header is whole.

    What a source does not answer here it will not answer to the download either, which knows how to tell: so nothing is
    reported from here but what the headers say.
    """
    with _as_far_as_asked(config):
        headers = []
        for file in config.files:
            header = _from_disk(config.partial / file.name, file) or _from_source(client, config, file)
            if header is None:
                return
            headers.append(header)
        _judge(config, report, headers)


def inspect_cached(config: FetchConfig, report: ProgressReport) -> None:
    """Read the headers of weights that are there."""
    with _as_far_as_asked(config):
        _judge(config, report, _headers_in(config.folder, config))


def inspect_place(config: FetchConfig, report: ProgressReport) -> None:
    """Read the headers of a model that is not brought here: on a volume, or in a repository that the engine fetches itself."""
    with _as_far_as_asked(config):
        if config.look == "Files":
            _judge(config, report, _headers_in(Path(config.place), config))
            return
        from stoker.fetch.huggingface import read_folder, read_repository

        try:
            facts = read_folder(Path(config.place)) if config.look == "Folder" else read_repository(config)
        except BadModelError as error:
            raise Stalled(
                "InvalidModel",
                f"{config.place} is no usable model: {error}. Check source.uri, or set spec.fitPolicy to Ignore",
            ) from error
        if facts is not None:
            judge_facts(config, report, facts)


def _headers_in(folder: Path, config: FetchConfig) -> list[GgufHeader]:
    headers = []
    for number, file in enumerate(config.files):
        path = folder / file.name
        if not path.is_file():
            what = "ShardNotFound" if number else "FileNotFound"
            raise Waiting(
                what, f"{path} is not there: correct source.uri, or put the file on the volume", retry_after=0
            )
        header = _from_disk(path, file, whole=True)
        if header is None:
            raise _refused(file, "it ends before its header does")
        headers.append(header)
    return headers


@contextmanager
def _as_far_as_asked(config: FetchConfig) -> Iterator[None]:
    try:
        yield
    except StokerError as refusal:
        if config.fit_policy != "Ignore":
            raise
        log.warning("ignored, as spec.fitPolicy says", reason=refusal.reason, message=refusal.message)


def _judge(config: FetchConfig, report: ProgressReport, headers: list[GgufHeader]) -> None:
    try:
        facts = facts_of(headers)
    except BadModelError as error:
        raise _refused(config.files[0], str(error)) from error
    judge_facts(config, report, facts)


def judge_facts(config: FetchConfig, report: ProgressReport, facts: ModelFacts) -> None:
    """Tell what the model is, and stop where it does not fit or the engine has to be told first."""
    report.describe({"source": config.digest, **facts.to_json()})
    fit = compute_fit(facts, config.fit) if config.fit and config.fit_policy == "Enforce" else None
    if config.hold:
        raise Waiting(
            "ChoosingContext",
            "the largest context that fits is being chosen by what the model's header says; then this pod is replaced",
            retry_after=HOLD_SECONDS,
        )
    if fit is not None and fit.fits is False:
        what = config.files[0].name if config.files else config.place
        raise Stalled("DoesNotFit", f"{what} does not fit: {explain_misfit(fit)}")


def _from_disk(path: Path, file: SourceFile, *, whole: bool = False) -> GgufHeader | None:
    """None: it is not there, or not far enough to tell."""
    parser = GgufParser()
    try:
        with path.open("rb", buffering=0) as stream:
            while piece := stream.read(PIECE):
                header = parser.feed(piece)
                if header is not None:
                    return _checked(header, file, path.stat().st_size if whole else None)
    except FileNotFoundError:
        return None
    except BadModelError as error:
        if not whole:
            # A part may have been spoiled by a crash: the source knows.
            return None
        raise _refused(file, str(error)) from error
    return None


def _from_source(client: httpx.Client, config: FetchConfig, file: SourceFile) -> GgufHeader | None:
    import httpx

    from stoker.fetch.source import parse_content_range

    headers = {"Range": f"bytes=0-{MAX_HEADER - 1}"}
    if config.token:
        headers["Authorization"] = f"Bearer {config.token}"
    parser = GgufParser()
    beginning = b""
    try:
        with client.stream("GET", file.url, headers=headers) as response:
            if response.status_code not in (200, 206):
                return None
            span = parse_content_range(response.headers.get("Content-Range", ""))
            told = response.headers.get("Content-Length", "") if response.status_code == 200 else ""
            length = span[2] if span else int(told) if told.isascii() and told.isdigit() else None
            for piece in response.iter_raw(PIECE):
                beginning = beginning or piece[:4]
                if not MAGIC.startswith(beginning):
                    # Login pages and pointers to files: the download says which.
                    return None
                header = parser.feed(piece)
                if header is not None:
                    return _checked(header, file, length)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.debug("header could not be read", file=file.name, error=str(error))
        return None
    except BadModelError as error:
        raise _refused(file, str(error)) from error
    return None


def _checked(header: GgufHeader, file: SourceFile, length: int | None) -> GgufHeader:
    if length is not None and length < header.data_end:
        raise _refused(file, f"its header speaks of {header.data_end} bytes, but it has {length}")
    return header


def _refused(file: SourceFile, why: str) -> Stalled:
    return Stalled(
        "InvalidModel", f"{file.name} is no usable GGUF file: {why}. Check source.uri, or set spec.fitPolicy to Ignore"
    )
