"""The package under test is not installed: it lies beside the `build` command that runs it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "hack" / "images"), str(ROOT / "tests" / "kindless")]
