from pathlib import Path

import pytest
from imagebuild import worlds


@pytest.mark.parametrize(
    ("name", "answer"),
    [("docker.io/library/a", True), ("ghcr.io/a/b", True), ("localhost/a", True), ("a", False), ("org/a", False)],
)
def test_a_registry_is_told_from_an_organization(name: str, answer: bool) -> None:
    assert worlds.has_registry(name) is answer


def test_builds_ask_the_package_index_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and are not told of folders that exist only here."""
    shown = ":env:.find-links='/wheels'\nglobal.index-url='https://pypi.example.com/simple'\nglobal.timeout='60'\n"
    monkeypatch.setattr(worlds, "output", lambda _: shown)
    monkeypatch.setattr(worlds.shutil, "which", lambda _: "pip")
    worlds.write_pip_config(tmp_path / "pip.conf")
    text = (tmp_path / "pip.conf").read_text()
    assert text == "[global]\nindex-url = https://pypi.example.com/simple\ntimeout = 60\n\n"
