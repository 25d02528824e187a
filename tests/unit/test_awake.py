"""The clock of tests that hold the product to seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import time
from awake import awake
began, at = awake(), time.monotonic()
print(flush=True)
input()
print(awake() - began, time.monotonic() - at)
"""


def test_a_moment_in_which_nothing_ran_does_not_count() -> None:
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=path, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        ran, passed = map(float, process.stdout.readline().split())
    assert passed >= 0.6
    assert ran <= passed - 0.5
