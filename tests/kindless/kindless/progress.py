"""Long commands that say now and then how far they are."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import KindlessError

INTERVAL_SECONDS = 10


def interrupt_on_termination() -> None:
    """SIGTERM does what Ctrl-C does, so that everything started is ended and everything half made is removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run_with_progress(
    command: Sequence[str | Path], what: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command quietly; every few seconds print the time and its latest line, and at a failure its last lines."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=INTERVAL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    lines = last_lines(output, 1)
                    say(f"  {what}: {time.monotonic() - started:.0f} s  {lines[0][:100] if lines else ''}".rstrip())
        except BaseException:
            end_group(process)
            raise
        if status:
            details = "\n".join(last_lines(output, 25))
            raise KindlessError(f"{what} failed (exit status {status}):\n{details}")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """A compiler's own children, too. First politely: mmdebstrap removes its folders."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)


def last_lines(output: IO[str], count: int) -> list[str]:
    """Read through a second descriptor: moving the shared position would make the command overwrite its own output."""
    with open(f"/proc/self/fd/{output.fileno()}", errors="replace") as reader:
        reader.seek(0, os.SEEK_END)
        reader.seek(max(0, reader.tell() - 8192))
        lines = [line for line in reader.read().replace("\r", "\n").splitlines() if line.strip()]
    return lines[-count:]
