from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from stoker.gateway.main import (
    LONGEST_WAIT_SECONDS,
    QUICK_RESTARTS,
    RELAY_ENVIRONMENT,
    STEADY_SECONDS,
    Child,
    describe,
)


def ended(child: Child, after: float) -> float:
    """How long it waits after a life of so many seconds."""
    child.pid = 12345
    with patch("stoker.gateway.main.time") as clock:
        clock.monotonic.return_value = 1000.0
        child.started_at = 1000.0 - after
        child.ended(signal.SIGKILL)
    return round(child.start_at - 1000.0, 1)


def test_a_killed_process_starts_again_at_once() -> None:
    child = Child("policy", [])
    assert [ended(child, after=0.1) for _ in range(QUICK_RESTARTS)] == [0] * QUICK_RESTARTS
    assert child.pid == 0


def test_one_that_cannot_start_waits_longer_and_longer_but_never_long() -> None:
    child = Child("policy", [])
    waits = [ended(child, after=0.1) for _ in range(QUICK_RESTARTS + 12)][QUICK_RESTARTS:]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == LONGEST_WAIT_SECONDS
    assert ended(child, after=STEADY_SECONDS + 1) == 0, "a steady life wipes the slate"


def test_the_relay_keeps_its_memory_and_knows_the_rest_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, told = tmp_path / "program", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$MALLOC_TRIM_THRESHOLD_ $STOKER_GATEWAY_NAME" > {told}\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("STOKER_GATEWAY_NAME", "gateway")
    child = Child("relay", [], environment=RELAY_ENVIRONMENT)
    child.start()
    assert os.waitpid(child.pid, 0)[1] == 0
    assert told.read_text() == f"{4 << 20} gateway\n"


def test_an_end_is_described_in_words() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)
    assert describe(os.waitpid(pid, 0)[1]) == "exit code 3"
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "kill -9 $$"], os.environ)
    assert describe(os.waitpid(pid, 0)[1]) == "signal SIGKILL"
