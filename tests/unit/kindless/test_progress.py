import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kindless import progress
from kindless.errors import KindlessError
from kindless.process import read_stat

SOURCES = Path(progress.__file__).parents[1]


def test_a_failure_shows_the_last_lines() -> None:
    with pytest.raises(KindlessError, match=r"(?s)two steps failed \(exit status 3\):.*second"):
        progress.run_with_progress(["sh", "-c", "echo first; echo second >&2; exit 3"], "two steps")


def test_a_long_command_shows_its_latest_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.1)
    progress.run_with_progress(["sh", "-c", "echo compiling a; sleep 1"], "build")
    assert re.search(r"build: \d+ s  compiling a", capsys.readouterr().err)


def test_termination_ends_the_command_and_its_children(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(SOURCES)!r})
from kindless.progress import interrupt_on_termination, run_with_progress
interrupt_on_termination()
run_with_progress(["sh", "-c", "sleep 60 & sleep 0.5; echo $! > {tmp_path}/pid; wait"], "long")
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        wait_for_text(tmp_path / "pid")
        process.terminate()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while (stat := read_stat(pid)) and stat[0] != "Z":
        assert time.monotonic() < deadline


def wait_for_text(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
