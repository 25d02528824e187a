"""Nothing of a cluster stays on the machine: after delete, and also after the death of `create` at any moment."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Kind, needs_root

pytestmark = [pytest.mark.kindless]

NAME = "clean"
# What the kubelet and the network would change on the machine if it were let.
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
Snapshot = dict[str, list[str]]


def take_snapshot(kind: Kind) -> Snapshot:
    """Everything of the machine that a cluster could leave its mark on; other clusters may come and go meanwhile."""
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir() if not is_foreign(path.name, kind)),
        "iptables": rules("iptables-save"),
        "nftables": rules("nft", "list", "ruleset"),
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "processes": cluster_processes(kind),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/stk-{NAME}*")),
        "sysctls": [Path("/proc/sys", name).read_text() for name in SYSCTLS],
        "mount points": [path for path in ("/var/lib/kubelet", "/var/lib/cni") if Path(path).exists()],
        "clusters": sorted(path.name for path in (kind.cache / "clusters").glob("*") if path.is_dir()),
    }


def is_foreign(interface: str, kind: Kind) -> bool:
    """Another cache's cluster: its number is not one of ours."""
    if not interface.startswith("stk"):
        return False
    for record in (kind.cache / "clusters").glob("*/cluster.json"):
        kind.numbers.add(json.loads(record.read_text())["number"])
    return interface.removeprefix("stk").removesuffix("n") not in {str(number) for number in kind.numbers}


def rules(*command: str) -> list[str]:
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in shown if not line.startswith("#")]


def cluster_processes(kind: Kind) -> list[str]:
    """By their environment, by their cgroup, or because they live in one of the cluster's PID namespaces."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
            cgroup = (directory / "cgroup").read_text()
            state = (directory / "stat").read_text().rsplit(")", 1)[1].split()[0]
            command = (directory / "comm").read_text().strip()
        except OSError:
            continue  # ended meanwhile
        if (str(kind.cache).encode() in environment or f"/stk-{NAME}/" in cgroup) and state != "Z":
            found.append(f"{directory.name} {command}")
    return found


def assert_clean(kind: Kind, before: Snapshot) -> None:
    """The kernel takes ended namespaces apart in the background, and on a busy machine in its own time."""
    deadline = time.monotonic() + 60
    while (now := take_snapshot(kind)) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now == before


@pytest.fixture
def before(kind: Kind) -> Snapshot:
    if os.geteuid() != 0:
        pytest.skip("reading the machine's rules needs root")
    return take_snapshot(kind)


@needs_root
def test_a_deleted_cluster_leaves_nothing_behind(kind: Kind, before: Snapshot) -> None:
    kind("create", "cluster", "--name", NAME)
    alive = take_snapshot(kind)
    assert len(alive["processes"]) > 8
    assert alive["cgroups"]
    assert alive["interfaces"] != before["interfaces"]
    assert (alive["iptables"], alive["nftables"], alive["mounts"]) == (
        before["iptables"],
        before["nftables"],
        before["mounts"],
    )
    kind("delete", "cluster", "--name", NAME)
    assert_clean(kind, before)


def test_a_deleted_control_plane_leaves_nothing_behind(kind: Kind, before: Snapshot) -> None:
    kind("create", "cluster", "--name", NAME, "--control-plane-only", "--kwok-nodes", "1")
    assert len(take_snapshot(kind)["processes"]) == 6
    kind("delete", "cluster", "--name", NAME)
    assert_clean(kind, before)


def has(path: str) -> Callable[[Kind], bool]:
    return lambda kind: (kind.cache / "clusters" / NAME / path).exists()


# The last moment before each of these things is noted or finished is another leak that could be.
MOMENTS = {
    "the record is written": has("cluster.json"),
    "the certificates are written": has("pki/admin.crt"),
    "the node has started": has("processes"),
    "containerd runs": has("c.sock"),
    "the API server has started": has("processes/kube-apiserver"),
    "the kubelet has started": has("processes/kubelet"),
    "pods run": has("kubelet/pods"),
}
WITHOUT_NODE = ("the record is written", "the node has started", "the API server has started")


@needs_root
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_create_killed_when(moment: str, kind: Kind, before: Snapshot) -> None:
    """... is cleaned up by delete."""
    kill_create(kind, MOMENTS[moment])
    kind("delete", "cluster", "--name", NAME)
    assert_clean(kind, before)


@pytest.mark.parametrize("moment", WITHOUT_NODE)
def test_a_create_of_a_control_plane_killed_when(moment: str, kind: Kind, before: Snapshot) -> None:
    """... is cleaned up by delete."""
    kill_create(kind, MOMENTS[moment], "--control-plane-only")
    kind("delete", "cluster", "--name", NAME)
    assert_clean(kind, before)


@needs_root
def test_the_next_create_of_any_cluster_cleans_up_a_killed_one(kind: Kind, before: Snapshot) -> None:
    kill_create(kind, MOMENTS["the kubelet has started"])
    kind("create", "cluster", "--name", "other", "--control-plane-only")
    assert kind.clusters() == ["other"]
    kind("delete", "cluster", "--name", "other")
    assert_clean(kind, before)


@needs_root
def test_a_cluster_whose_processes_were_killed_can_be_made_again(kind: Kind, before: Snapshot) -> None:
    kind("create", "cluster", "--name", NAME)
    record = json.loads((kind.cache / "clusters" / NAME / "cluster.json").read_text())
    os.kill(record["supervisor"]["pid"], signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{record['launcher']['pid']}").exists())
    assert kind.clusters() == []
    kind("create", "cluster", "--name", NAME)
    kind("delete", "cluster", "--name", NAME)
    assert_clean(kind, before)


@needs_root
def test_an_interrupted_create_cleans_up_by_itself(kind: Kind, before: Snapshot) -> None:
    process = kind.start("create", "cluster", "--name", NAME)
    wait_for(lambda: MOMENTS["the API server has started"](kind))
    process.terminate()
    _, errors = process.communicate(timeout=90)
    assert "interrupted" in errors
    assert_clean(kind, before)


def kill_create(kind: Kind, happened: Callable[[Kind], bool], *options: str) -> None:
    process = kind.start("create", "cluster", "--name", NAME, *options)
    wait_for(lambda: happened(kind), pause_seconds=0.001)
    take_snapshot(kind)  # learns the cluster's number, by which a left-over interface would be known
    process.kill()
    process.communicate(timeout=90)


def wait_for(happened: Callable[[], bool], pause_seconds: float = 0.05) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(pause_seconds)
