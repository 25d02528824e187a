"""Writing and checking generated files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.codegen import __main__ as command
from stoker.codegen import files

WANTED = {"crds/a.yaml": "a\n", "docs/reference/a.md": "# A\n"}


def test_writing_makes_the_files_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assert files.write(tmp_path, WANTED) == ["crds/a.yaml", "docs/reference/a.md"]
    assert (tmp_path / "crds/a.yaml").read_text() == "a\n"
    assert files.write(tmp_path, WANTED) == []


def test_a_file_that_is_no_longer_generated_is_stale_and_removed(tmp_path: Path) -> None:
    files.write(tmp_path, WANTED)
    left_over = tmp_path / "crds/old.yaml"
    left_over.write_text("old\n")
    assert files.stale_files(tmp_path, WANTED) == ["crds/old.yaml"]
    files.write(tmp_path, WANTED)
    assert not left_over.exists()


def test_an_edited_file_is_stale(tmp_path: Path) -> None:
    files.write(tmp_path, WANTED)
    (tmp_path / "crds/a.yaml").write_text("b\n")
    assert files.stale_files(tmp_path, WANTED) == ["crds/a.yaml"]


def test_check_lists_what_differs_and_the_command_to_run_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "generate", lambda _: WANTED)
    assert command.main(["--check", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "crds/a.yaml" in said
    assert "run: make generate" in said
    assert list(tmp_path.iterdir()) == []
    assert command.main(["--root", str(tmp_path)]) == 0
    assert command.main(["--check", "--root", str(tmp_path)]) == 0
