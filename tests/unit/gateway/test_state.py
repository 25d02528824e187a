from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.state import StateReader, write_file


def fill(folder: Path, *models: dict[str, Any]) -> None:
    write_file(folder / "routes.json", routes(*(models or (model("qwen"),))))
    write_file(folder / "keys.json", keys(key("alice", "sk-alice")))


def test_a_file_is_written_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert write_file(path, b"one")
    inode = path.stat().st_ino
    assert not write_file(path, b"one")
    assert path.stat().st_ino == inode
    assert write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_file(path, b"old")

    def refuse(*_: object) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_there_is_no_table_before_routes_and_keys_are_there(tmp_path: Path) -> None:
    reader = StateReader(tmp_path)
    assert not reader.load()
    write_file(tmp_path / "routes.json", routes(model("qwen")))
    assert not reader.load()
    assert reader.table is None
    fill(tmp_path)
    assert reader.load()
    assert reader.table is not None
    assert reader.endpoints == {}


def test_only_a_change_makes_a_new_table(tmp_path: Path) -> None:
    fill(tmp_path)
    reader = StateReader(tmp_path)
    assert reader.load()
    first = reader.table
    assert not reader.load()
    assert reader.table is first
    write_file(tmp_path / "endpoints.json", b'{"team-a/qwen": ["10.0.0.1:8080"]}')
    assert reader.load()
    assert reader.endpoints == {"team-a/qwen": ("10.0.0.1:8080",)}
    assert reader.table is first, "endpoints come and go; decisions already made stay good"
    fill(tmp_path, model("qwen", aliases=["q"]))
    assert reader.load()
    assert reader.table is not first
    assert reader.generation == 2


@pytest.mark.parametrize("name", ["routes.json", "keys.json", "endpoints.json"])
def test_a_broken_file_leaves_the_last_configuration_in_force(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    reader = StateReader(tmp_path)
    reader.load()
    before = reader.table
    write_file(tmp_path / name, b"{")
    assert not reader.load()
    assert reader.table is before
