"""What is known about the parts on disk, so that a new process can go on where an old one stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

STATE_FILE = ".stoker-state.json"


@dataclass
class FileState:
    """One file: what the source said about it, and how much of it is safely on disk."""

    url_sha256: str = ""
    """Hash of the URL, not the URL: signed URLs are secrets and the cache may be shared."""
    etag: str = ""
    last_modified: str = ""
    length: int | None = None
    synced: int = 0
    """Bytes that survive a crash of the node; a new process goes on from here."""
    complete: bool = False
    sha256: str = ""
    """The sum that was verified, when one was asked for."""
    rejected_sha256: str = ""
    """The sum of a whole file that was refused; as long as the source offers that very file it is not fetched again."""

    @property
    def version(self) -> tuple[str, str, int | None]:
        """What tells one state of the source's file from another."""
        return self.etag, self.last_modified, self.length

    @version.setter
    def version(self, value: tuple[str, str, int | None]) -> None:
        self.etag, self.last_modified, self.length = value

    @property
    def validator(self) -> str:
        """For If-Range, which takes no weak ETag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class CacheState:
    """The state file of one model's folder; it moves along with the folder and then says which sums were verified."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_FILE
        self._files: dict[str, FileState] = {}
        known = {field.name for field in dataclasses.fields(FileState)}
        try:
            stored = json.loads(self._path.read_text())
            self._files = {
                name: FileState(**{key: value for key, value in entry.items() if key in known})
                for name, entry in stored["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Missing or spoiled: nothing is known, so everything is fetched again.
            self._files = {}

    def file(self, name: str, url: str) -> FileState:
        """What is known about a file from this URL."""
        hashed = hashlib.sha256(url.encode()).hexdigest()
        state = self._files.get(name)
        if state is None or state.url_sha256 != hashed:
            state = self._files[name] = FileState(url_sha256=hashed)
        return state

    def save(self) -> None:
        """Written by rename and synced: it must never claim more than the disk holds."""
        temporary = self._path.with_name(STATE_FILE + ".new")
        document = {"files": {name: dataclasses.asdict(state) for name, state in self._files.items()}}
        with temporary.open("w") as stream:
            json.dump(document, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self._path)
