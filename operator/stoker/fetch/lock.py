"""One writer per model in a cache that several pods share.

Two things guard it, because neither is enough everywhere. flock ends with its holder, but on some network file systems it
is seen on one node only. The heartbeat in the lock file is seen by all, but it takes a while to tell a dead holder from a
slow one, and it is measured with the waiter's own clock, since clocks of nodes differ.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from stoker.errors import Waiting

HEARTBEAT_INTERVAL = 5.0
STALE_AFTER = 30.0
"""Six missed heartbeats."""
SETTLE = 1.0
"""After writing its name into the lock a pod looks again: where flock is not shared, two may have written."""
POLL_INTERVAL = 1.0

NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class CacheLock:
    """Held while one pod writes a model into the cache."""

    def __init__(
        self,
        path: Path,
        *,
        host: str | None = None,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        stale_after: float = STALE_AFTER,
        settle: float = SETTLE,
        poll_interval: float = POLL_INTERVAL,
    ) -> None:
        self._path = path
        self._host = host or socket.gethostname()
        self._owner = f"{self._host}/{uuid.uuid4().hex[:12]}"
        self._heartbeat_interval = heartbeat_interval
        self._stale_after = stale_after
        self._settle = settle
        self._poll_interval = poll_interval
        self._descriptor = -1
        self._beats = 0
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._heart: threading.Thread | None = None
        self.holder_progress: Callable[[], tuple[int, int | None]] = lambda: (0, None)
        """Read at each heartbeat, so that the pods that wait can show how far the holder is."""

    def acquire(self, on_wait: Callable[[str, int, int | None], None], done: Callable[[], bool]) -> bool:
        """Wait for the lock; False when the weights were finished by somebody else meanwhile."""
        seen: bytes | None = None
        seen_at = 0.0
        while True:
            if done():
                return False
            if self._flock():
                content = self._read()
                if content != seen:
                    seen, seen_at = content, time.monotonic()
                if self._free(content) or time.monotonic() - seen_at >= self._stale_after:
                    self._beat()
                    time.sleep(self._settle)
                    if self._owned():
                        self._heart = threading.Thread(target=self._keep_beating, name="lock-heartbeat", daemon=True)
                        self._heart.start()
                        return True
                self._close()
            else:
                content = self._read()
            holder = _parse(content)
            on_wait(str(holder.get("host", "another pod")), holder.get("completedBytes") or 0, holder.get("totalBytes"))
            time.sleep(self._poll_interval)

    def check(self) -> None:
        """Raise when another pod has taken over: it believed this one dead, and two writers would spoil the file."""
        if self._lost.is_set():
            raise Waiting("LockLost", "another pod has taken over this download", retry_after=1.0)

    def owned_now(self) -> bool:
        """Whether the lock file still names this pod, read afresh: asked before the weights are published."""
        return not self._lost.is_set() and self._owned()

    def release(self) -> None:
        """Let the next pod in; harmless when the lock was never had, or has been taken over."""
        self._stop.set()
        if self._heart:
            self._heart.join()
            self._heart = None
        if self._descriptor >= 0:
            if not self._lost.is_set() and self._owned():
                # Emptied, not removed: a pod that waits has this very file open.
                os.ftruncate(self._descriptor, 0)
            self._close()

    def __enter__(self) -> CacheLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _flock(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_FLOCK:
                return True
            self._close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def _free(self, content: bytes) -> bool:
        """Nobody's, or left behind by an earlier container of this same pod: a pod runs one `stoker fetch` at a time."""
        return not content.strip() or _parse(content).get("host") == self._host

    def _read(self) -> bytes:
        # Opened anew each time: network file systems promise fresh content only at open.
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _owned(self) -> bool:
        return _parse(self._read()).get("owner") == self._owner

    def _beat(self) -> None:
        self._beats += 1
        completed, total = self.holder_progress()
        document = {
            "owner": self._owner,
            "host": self._host,
            "beat": self._beats,
            "completedBytes": completed,
            "totalBytes": total,
        }
        content = json.dumps(document).encode() + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._heartbeat_interval):
            try:
                if not self._owned():
                    self._lost.set()
                    return
                self._beat()
            except OSError:
                # A heartbeat that cannot be written is a missed one; if it stays so, somebody takes over and _owned() tells.
                continue

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


def _parse(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
