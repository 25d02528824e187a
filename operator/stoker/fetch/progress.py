"""How far the download is: a small file that the agent serves, and log lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import structlog

log = structlog.get_logger("fetch")

WRITE_INTERVAL = 1.0
LOG_INTERVAL = 5.0
SPEED_WINDOW = 5.0

Phase = Literal["Waiting", "Downloading", "Verifying", "Retrying", "Failed", "Done"]


@dataclass
class Progress:
    """The same fields as the operator's FetchProgress, which would bring pydantic and all four kinds into this process.

    Changed in place: a copy for every piece that arrives was a tenth of the downloader's own work.
    """

    phase: Phase
    file: str = ""
    completed_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float = 0.0
    reason: str = ""
    message: str = ""
    model: dict[str, Any] | None = None
    """What the header says, once it has been read."""


@dataclass
class _Speed:
    """Bytes per second over the last window; a mean since the start would hide a source that has become slow."""

    since: float
    bytes_at_start: int
    value: float = 0.0

    def update(self, now: float, completed: int) -> None:
        elapsed = now - self.since
        if elapsed >= SPEED_WINDOW or (self.value == 0.0 and elapsed >= WRITE_INTERVAL):
            self.value = max(0.0, (completed - self.bytes_at_start) / elapsed)
            self.since, self.bytes_at_start = now, completed


class ProgressReport:
    """Keeps the progress file current.

    Written by rename, so that a reader never sees half of it. When it cannot be written the download goes on: nobody
    should wait for weights because a status line is missing.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._written_at = self._logged_at = float("-inf")
        self._speed = _Speed(clock(), 0)
        self._complained = False
        self.current = Progress("Waiting")

    def phase(self, phase: Phase, *, file: str = "", reason: str = "", message: str = "") -> None:
        """Enter a phase: written and logged at once."""
        self._speed = _Speed(self._clock(), self.current.completed_bytes)
        self.current = replace(
            self.current, phase=phase, file=file, reason=reason, message=message, bytes_per_second=0.0
        )
        self._write()
        self._log()

    def describe(self, model: dict[str, Any]) -> None:
        """Tell what the model's header says, in the fields of ModelStatus; written at once."""
        if self.current.model != model:
            self.current.model = model
            self._write()

    def bytes(self, completed: int, total: int | None) -> None:
        """Called for every piece that arrives; touches the disk once a second."""
        self.current.completed_bytes, self.current.total_bytes = completed, total
        now = self._clock()
        if now - self._written_at < WRITE_INTERVAL:
            return
        self._speed.update(now, completed)
        self.current.bytes_per_second = self._speed.value
        self._write()
        if now - self._logged_at >= LOG_INTERVAL:
            self._log()

    def _write(self) -> None:
        self._written_at = self._clock()
        progress = self.current
        document = {
            "phase": progress.phase,
            "file": progress.file,
            "completedBytes": progress.completed_bytes,
            "totalBytes": progress.total_bytes,
            "bytesPerSecond": round(progress.bytes_per_second),
            "reason": progress.reason,
            "message": progress.message,
            **({"model": progress.model} if progress.model else {}),
        }
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            temporary.write_text(json.dumps(document))
            os.replace(temporary, self._path)
        except OSError as error:
            if not self._complained:
                log.warning("progress file cannot be written", path=str(self._path), error=str(error))
            self._complained = True

    def _log(self) -> None:
        self._logged_at = self._clock()
        progress = self.current
        fields: dict[str, object] = {"file": progress.file} if progress.file else {}
        fields |= {"completed": progress.completed_bytes, "total": progress.total_bytes}
        if progress.bytes_per_second:
            fields["megabytes_per_second"] = round(progress.bytes_per_second / 1e6, 1)
        if progress.reason:
            fields |= {"reason": progress.reason, "message": progress.message}
        log.info(progress.phase.lower(), **fields)
