"""Taking a cluster away so that nothing of it is left, whatever state it is in."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from .cgroups import remove_cgroups
from .cluster import Cluster, allocation_lock, clusters_dir, list_clusters
from .errors import KindlessError
from .process import Process
from .progress import say

# Mount points that must exist on the machine's own file system, under the mounts of a node.
MOUNT_POINTS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))


def destroy(cluster: Cluster) -> None:
    """End the processes, and the kernel ends the namespaces: mounts, interfaces, rules and sockets go with them."""
    creator = cluster.creator if cluster.phase == "Creating" else None
    if creator and creator.pid == os.getpid():
        creator = None
    for process in (creator, cluster.supervisor, cluster.launcher):
        if process and not process.kill():
            raise KindlessError(f"process {process.pid} of cluster {cluster.name} does not end")
    for process in [*supervised(cluster), cluster.forwarder]:
        # These follow the supervisor by themselves; wait, and help where that went wrong.
        if process and not process.wait(2) and not process.kill():
            raise KindlessError(f"process {process.pid} of cluster {cluster.name} does not end")
    if cluster.has_link and Path(f"/sys/class/net/{cluster.link}").exists():
        subprocess.run(["ip", "link", "del", cluster.link], capture_output=True, check=False)
    if not cluster.control_plane_only:
        for left in remove_cgroups(cluster.cgroup):
            say(f"cgroup {left} is still in use")
    remove_directory(cluster)
    remove_mount_points()


def supervised(cluster: Cluster) -> list[Process]:
    """Only a control plane's: a node's processes have numbers of another namespace, and end with it."""
    if not cluster.control_plane_only:
        return []
    notes = [file.read_text().split() for file in entries(cluster.directory / "processes")]
    return [Process(int(note[0]), note[1]) for note in notes if len(note) == 2]


def remove_directory(cluster: Cluster) -> None:
    """The record goes last, so that a killed `delete` can be repeated.

    Mounts of an ended namespace are taken down in the background, so the folder may be busy for a moment.
    """
    deadline = time.monotonic() + 10
    # Another command may sweep up the same dead cluster at the same time: what it has removed is not ours to miss.
    while present := entries(cluster.directory):
        for path in present:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path != cluster.record_file:
                path.unlink(missing_ok=True)
        if entries(cluster.directory) in ([], [cluster.record_file]):
            break
        if time.monotonic() > deadline:
            raise KindlessError(f"cannot remove {cluster.directory}; see `mount`, then delete the cluster again")
        time.sleep(0.05)
    shutil.rmtree(cluster.directory, ignore_errors=True)


def entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def make_mount_points() -> None:
    """Note first, make then: what we made is ours to remove with the last cluster."""
    with allocation_lock():
        notes = clusters_dir() / "mountpoints.json"
        made = set(json.loads(notes.read_text())) if notes.exists() else set()
        made |= {str(path) for path in MOUNT_POINTS if not path.exists()}
        notes.write_text(json.dumps(sorted(made)))
        for path in MOUNT_POINTS:
            path.mkdir(parents=True, exist_ok=True)


def remove_mount_points() -> None:
    with allocation_lock():
        notes = clusters_dir() / "mountpoints.json"
        if any(not cluster.control_plane_only for cluster in list_clusters()) or not notes.exists():
            return
        for path in json.loads(notes.read_text()):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                os.rmdir(path)
        notes.unlink()


def sweep() -> None:
    """Remove what a killed `create` or a restart of the machine has left behind."""
    for cluster in list_clusters():
        if cluster.dead:
            say(f'Removing what is left of cluster "{cluster.name}"')
            destroy(cluster)
