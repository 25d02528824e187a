"""The access log as files: one JSON line for each request that was sent to an engine, written by Envoy when the request has ended.

Envoy appends to access.jsonl. The relay renames a large one to the next number and has Envoy open a new one; so a reader that
keeps number and offset finds its place again, also in another process. Reading needs nothing but the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

from stoker.gateway import admin
from stoker.gateway.admin import NotAnswering

logger = logging.getLogger(__name__)

CURRENT = "access.jsonl"
ROTATED = re.compile(r"access\.(\d{10})\.jsonl")
ROTATE_FROM = 32 << 20
"""Bytes; about 60,000 requests."""
KEEP = 8
"""Rotated files at most: the log takes up to (KEEP + 1) × ROTATE_FROM of the emptyDir, whether somebody reads it or not."""
LONGEST_READ = 1 << 20


def rotated_path(folder: Path, number: int) -> Path:
    """A file that Envoy does not write to any more."""
    return folder / f"access.{number:010d}.jsonl"


def rotated_numbers(folder: Path) -> list[int]:
    """Numbers of the rotated files, in order. The last one is never deleted, so that no number is given twice."""
    found = (ROTATED.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def current_number(folder: Path) -> int:
    """What the file that Envoy writes to will be called when it is rotated."""
    return max(rotated_numbers(folder), default=0) + 1


class LogReader:
    """Reads whole lines from a place on, over rotations. A place is the number of a file and an offset in it."""

    def __init__(self, folder: Path, number: int, offset: int = 0) -> None:
        self._folder = folder
        self.number = number
        self.offset = offset
        self._file: int | None = None

    @classmethod
    def at_end(cls, folder: Path) -> LogReader:
        """For whom only news counts."""
        number = current_number(folder)
        try:
            return cls(folder, number, (folder / CURRENT).stat().st_size)
        except FileNotFoundError:
            return cls(folder, number)

    def read(self, most: int = LONGEST_READ) -> bytes:
        """The next whole lines, up to so many bytes; nothing when there are none yet."""
        while True:
            file = self._open()
            if file is None:
                return b""
            # Asked before reading: whatever an older file got, it got before the next one was there.
            final = self._has_successor(file)
            data = os.pread(file, most, self.offset)
            end = data.rfind(b"\n") + 1
            if end:
                self.offset += end
                return data[:end]
            if len(data) == most:
                # No line is as long: what a crash has left. Go on behind it.
                self.offset += len(data)
                continue
            if not final:
                return b""
            self._next()

    def close(self) -> None:
        """Let go of the file; number and offset stay good."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _next(self) -> None:
        self.close()
        self.number, self.offset = self.number + 1, 0

    def _open(self) -> int | None:
        if self._file is None:
            self._file = self._find()
        return self._file

    def _find(self) -> int | None:
        numbers = rotated_numbers(self._folder)
        if self.number not in numbers:
            # Files are gone that nobody has read in time: go on with the oldest that is there.
            later = [number for number in numbers if number > self.number]
            following = later[0] if later else (numbers[-1] + 1 if numbers else 1)
            if following != self.number:
                logger.warning(
                    "the access log goes on with file %d; %d was not read to its end", following, self.number
                )
                self.number, self.offset = following, 0
        rotated = self.number in numbers
        path = rotated_path(self._folder, self.number) if rotated else self._folder / CURRENT
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not rotated and current_number(self._folder) != self.number:
            # Rotated in between: this may be the next file already.
            os.close(file)
            return self._find()
        return file

    def _has_successor(self, file: int) -> bool:
        """Whether Envoy writes to a later file by now."""
        try:
            current = os.stat(self._folder / CURRENT)
        except FileNotFoundError:
            return rotated_path(self._folder, self.number + 1).exists()
        own = os.fstat(file)
        return (current.st_dev, current.st_ino) != (own.st_dev, own.st_ino)


class Rotation:
    """Keeps the log's files from growing without end."""

    def __init__(
        self,
        folder: Path,
        admin_socket: Path,
        *,
        rotate_from: int = ROTATE_FROM,
    ) -> None:
        self._folder = folder
        self._admin_socket = admin_socket
        self._rotate_from = rotate_from

    async def look(self) -> None:
        """Rotate when it is time; called every few seconds."""
        current = self._folder / CURRENT
        with contextlib.suppress(FileNotFoundError):
            if current.stat().st_size < self._rotate_from:
                return
            current.rename(rotated_path(self._folder, current_number(self._folder)))
        numbers = rotated_numbers(self._folder)
        if not numbers:
            return
        try:
            # Also when an earlier call did not get through: until then Envoy writes to the file that was renamed.
            await admin.call(self._admin_socket, "POST", "/reopen_logs")
        except NotAnswering as error:
            logger.warning("the access log is not opened anew: %s", error)
        for number in numbers[:-KEEP]:
            rotated_path(self._folder, number).unlink(missing_ok=True)
