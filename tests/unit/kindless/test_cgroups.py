from pathlib import Path

import pytest
from kindless import cgroups
from kindless.errors import KindlessError

CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc"


@pytest.fixture
def version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a cgroup v2 tree to whoever only reads and writes its files."""
    (tmp_path / "cgroup.controllers").write_text(CONTROLLERS)
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    return tmp_path


def test_version_2_is_one_tree_with_every_controller(version_2: Path) -> None:
    assert cgroups.is_version_2()
    assert cgroups.hierarchies() == [version_2]
    assert cgroups.missing_controllers() == []


def test_a_missing_controller_is_named(version_2: Path) -> None:
    (version_2 / "cgroup.controllers").write_text("cpu cpuset memory")
    assert cgroups.missing_controllers() == ["pids"]


def test_controllers_that_are_enabled_are_left_alone(version_2: Path) -> None:
    (version_2 / "cgroup.subtree_control").write_text(CONTROLLERS)
    (version_2 / "cgroup.subtree_control").chmod(0o400)
    cgroups.enable_controllers(version_2)
    assert (version_2 / "cgroup.subtree_control").read_text() == CONTROLLERS


def test_a_cgroup_shared_with_processes_is_one_line_and_not_a_traceback(
    version_2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: Path, _: str) -> int:
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(Path, "write_text", busy)
    with pytest.raises(KindlessError, match=r"cannot enable 'cpuset' .*busy.*Docker"):
        cgroups.enable_controllers(version_2)


def test_a_tree_is_removed_bottom_up(version_2: Path) -> None:
    (version_2 / "stk-a" / "pod" / "container").mkdir(parents=True)
    assert cgroups.remove_cgroups("stk-a") == []
    assert not (version_2 / "stk-a").exists()


def test_what_cannot_be_removed_is_reported(version_2: Path) -> None:
    (version_2 / "stk-a").mkdir()
    (version_2 / "stk-a" / "busy").write_text("")
    assert cgroups.remove_cgroups("stk-a", timeout_seconds=0.1) == [version_2 / "stk-a"]
