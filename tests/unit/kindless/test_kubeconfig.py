import json
from pathlib import Path
from typing import Any

import pytest
from kindless.cluster import Cluster
from kindless.kubeconfig import add_entries, default_path, remove_entries


def config_of(name: str) -> dict[str, Any]:
    key = f"kind-{name}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": key,
        "clusters": [{"name": key, "cluster": {}}],
        "contexts": [{"name": key, "context": {}}],
        "users": [{"name": key, "user": {}}],
    }


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster("a")
    cluster.save()
    cluster.admin_kubeconfig.write_text(json.dumps(config_of("a")))
    return cluster


def contexts(path: Path) -> list[str]:
    return [entry["name"] for entry in json.loads(path.read_text())["contexts"]]


def test_an_empty_file_is_filled(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.touch()
    add_entries(cluster, path)
    assert json.loads(path.read_text())["current-context"] == "kind-a"
    assert path.stat().st_mode & 0o777 == 0o600


def test_entries_of_others_stay(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(config_of("other")))
    add_entries(cluster, path)
    assert contexts(path) == ["kind-other", "kind-a"]
    remove_entries("a", path)
    assert contexts(path) == ["kind-other"]


def test_entries_are_replaced_and_not_doubled(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    add_entries(cluster, path)
    add_entries(cluster, path)
    assert contexts(path) == ["kind-a"]


def test_removing_leaves_another_current_context_alone(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    add_entries(cluster, path)
    config = json.loads(path.read_text())
    config["current-context"] = "production"
    path.write_text(json.dumps(config))
    remove_entries("a", path)
    assert json.loads(path.read_text())["current-context"] == "production"


def test_a_file_without_our_entries_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("clusters: []  # somebody's own notes\n")
    remove_entries("a", path)
    assert path.read_text() == "clusters: []  # somebody's own notes\n"


def test_a_link_to_the_file_stays_a_link(cluster: Cluster, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.touch()
    link.symlink_to(real)
    add_entries(cluster, link)
    assert link.is_symlink()
    assert contexts(real) == ["kind-a"]


def test_the_first_file_of_the_variable_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/one:/two")
    assert default_path() == Path("/one")
