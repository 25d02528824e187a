"""One file's part on disk: written, hashed and synced while it arrives."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from stoker.fetch.state import CacheState, FileState

CHUNK = 1 << 20
SYNC_EVERY = 64 << 20
"""Bounds what a killed process or a crashed node costs, and the dirty pages that a slow disk has to swallow at the end."""


def hash_file(path: Path, length: int, on_bytes: Callable[[int], None]) -> hashlib._Hash:
    """SHA-256 of the first bytes of a file; a file that is shorter leaves the sum of what there is."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb", buffering=0) as stream:
        while done < length:
            piece = stream.read(min(CHUNK, length - done))
            if not piece:
                break
            digest.update(piece)
            done += len(piece)
            on_bytes(done)
    return digest


class PartWriter:
    """Appends to a part, and keeps the state file's `synced` behind what the disk really holds.

    Syncing has a thread of its own: on a slow disk it takes seconds, in which the source would otherwise wait.
    """

    def __init__(
        self, path: Path, state: CacheState, file: FileState, offset: int, digest: hashlib._Hash | None
    ) -> None:
        self._state = state
        self._file = file
        self._digest = digest
        self._sync_failure: OSError | None = None
        self._request = threading.Condition()
        self._wanted = 0
        self._closing = False
        self.offset = offset
        # r+b, not append: what lies beyond the offset was never synced and goes.
        self._stream = path.open("r+b" if path.exists() else "w+b", buffering=CHUNK)
        self._stream.truncate(offset)
        self._stream.seek(offset)
        self._next_sync = offset + SYNC_EVERY
        self._thread = threading.Thread(target=self._sync_on_request, name="sync", daemon=True)
        self._thread.start()

    def write(self, piece: bytes) -> None:
        """Raises what the disk said, also when it said it to the sync thread."""
        if self._sync_failure:
            raise self._sync_failure
        self._stream.write(piece)
        if self._digest is not None:
            self._digest.update(piece)
        self.offset += len(piece)
        if self.offset >= self._next_sync:
            self._stream.flush()
            self._next_sync = self.offset + SYNC_EVERY
            with self._request:
                self._wanted = self.offset
                self._request.notify()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._request:
            self._closing = True
            self._request.notify()
        self._thread.join()
        try:
            # The rest is kept also when the source or a signal ended the download: that is the point of resuming.
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._note(self.offset)
        except OSError:
            if kind is None:
                raise
        finally:
            # Closing flushes once more; after a full disk that can only fail the same way again.
            try:
                self._stream.close()
            except OSError:
                if kind is None:
                    raise

    def _sync_on_request(self) -> None:
        while True:
            with self._request:
                while not self._wanted and not self._closing:
                    self._request.wait()
                if self._closing:
                    return
                offset, self._wanted = self._wanted, 0
            try:
                os.fdatasync(self._stream.fileno())
                self._note(offset)
            except OSError as error:
                self._sync_failure = error
                return

    def _note(self, offset: int) -> None:
        self._file.synced = offset
        self._state.save()
