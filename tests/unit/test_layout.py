"""operator/ is a source root and must never hide Python's own operator module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator/stoker"


def test_the_source_root_is_no_package() -> None:
    assert PACKAGE.is_dir()
    assert not (ROOT / "operator/__init__.py").exists()


@pytest.mark.parametrize("code", ["import operator", "import sys; sys.modules.pop('operator', None); import operator"])
def test_python_started_in_the_root_finds_its_own_operator(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import collections; print(operator.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).name == "operator.py"
    assert ROOT not in Path(done.stdout.strip()).parents


def test_no_module_is_named_like_one_of_pythons_own() -> None:
    """Inside a package such a name is legal, but a file started by path would put its folder in front of Python's."""
    own = {path.stem for path in PACKAGE.rglob("*.py")} | {path.parent.name for path in PACKAGE.rglob("__init__.py")}
    assert own & sys.stdlib_module_names <= {"__init__", "__main__"}


def test_every_package_has_an_init_file() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()
