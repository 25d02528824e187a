"""What fuzzing has found worth keeping, replayed in a process of its own, whose memory is that of the readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[2] / "fuzz" / "headers.py"


def fuzz(*arguments: str) -> str:
    done = subprocess.run([sys.executable, FUZZER, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_corpus_and_the_heaviest_headers_do_no_harm() -> None:
    assert " inputs, " in fuzz("--replay")


def test_new_ones_do_no_harm() -> None:
    """A look whether the fuzzer runs: `make test` throws 80,000, `make fuzz` ten minutes and others."""
    assert "nothing broke" in fuzz("--inputs", "200", "--seed", "7")
