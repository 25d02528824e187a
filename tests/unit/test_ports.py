"""Ports of tests' servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os
os.getpid = lambda: 7
from ports import free_port
ports = [free_port() for _ in range(30)]
assert len(set(ports)) == 30, ports
print(ports[0] // 100, flush=True)
input()
"""


def test_two_processes_that_would_begin_alike_have_different_ports() -> None:
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=path, stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]
    hundreds = []
    for process in processes:
        assert process.stdout is not None
        hundreds.append(int(process.stdout.readline()))
    for process in processes:
        process.communicate("\n", timeout=60)
    assert hundreds[0] != hundreds[1]
    assert all(200 <= hundred < 300 for hundred in hundreds)
