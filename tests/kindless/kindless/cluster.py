"""What is known about a cluster: one folder and one JSON file, written before anything is made that would have to be removed."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import KindlessError
from .paths import cache_dir
from .process import Process

Phase = Literal["Creating", "Ready", "Failed"]

# A unix socket's path ends at 107 bytes, and containerd puts ".ttrpc" behind ours.
LONGEST_SOCKET_PATH = 101


@dataclass(frozen=True)
class PortMapping:
    """A port of the machine that reaches a port of the node."""

    listen_address: str
    host_port: int
    container_port: int


@dataclass
class Cluster:
    name: str
    control_plane_only: bool = False
    number: int = 0
    """Chooses the addresses; unique among the clusters with a node on this machine."""
    api_port: int = 0
    phase: Phase = "Creating"
    tools: str = ""
    """The folder of executables that it was made with, and goes on with after an update of the sources."""
    port_mappings: list[PortMapping] = field(default_factory=list)
    kwok_nodes: int = 0
    has_link: bool = False
    creator: Process | None = None
    launcher: Process | None = None
    """`unshare`, the parent of the node's first process; absent without namespaces."""
    supervisor: Process | None = None
    """The node's PID 1, or the plain parent of a control plane's processes."""
    forwarder: Process | None = None

    @property
    def directory(self) -> Path:
        return clusters_dir() / self.name

    @property
    def record_file(self) -> Path:
        return self.directory / "cluster.json"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def kubebox(self) -> Path:
        return Path(self.tools) / "kubebox"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.directory / "admin.conf"

    @property
    def containerd_socket(self) -> Path:
        return self.directory / "c.sock"

    @property
    def etcd_socket(self) -> Path:
        return self.directory / "etcd.sock"

    @property
    def cgroup(self) -> str:
        return f"stk-{self.name}"

    @property
    def node_name(self) -> str:
        return f"{self.name}-control-plane"

    @property
    def link(self) -> str:
        return f"stk{self.number}"

    @property
    def host_ip(self) -> str:
        return f"10.250.{self.number}.1"

    @property
    def node_ip(self) -> str:
        return "127.0.0.1" if self.control_plane_only else f"10.250.{self.number}.2"

    @property
    def service_cidr(self) -> str:
        return f"10.251.{self.number}.0/24" if not self.control_plane_only else "10.96.0.0/16"

    @property
    def api_service_ip(self) -> str:
        return f"10.251.{self.number}.1" if not self.control_plane_only else "10.96.0.1"

    @property
    def dns_ip(self) -> str:
        return f"10.251.{self.number}.10"

    @property
    def pod_cidr(self) -> str:
        return f"10.252.{self.number}.0/24"

    @property
    def supervisor_endpoint(self) -> str:
        """The API server as the cluster's own processes reach it."""
        return f"https://127.0.0.1:{self.api_port}" if self.control_plane_only else f"https://{self.node_ip}:6443"

    @property
    def endpoint(self) -> str:
        """The API server for everybody else: always loopback.

        A forgotten client of a deleted cluster is refused there; it does not send packets to a private address range.
        """
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def abandoned(self) -> bool:
        """Half made, and whoever was making it is gone."""
        return self.phase == "Creating" and not (self.creator and self.creator.alive)

    @property
    def dead(self) -> bool:
        """Of no more use: its creation was interrupted, or its processes are gone, say by a restart of the machine."""
        return self.abandoned or (self.phase == "Ready" and not self.running)

    @property
    def running(self) -> bool:
        return self.supervisor is not None and self.supervisor.alive

    def save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        unfinished = self.record_file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.replace(self.record_file)


def clusters_dir() -> Path:
    return cache_dir() / "clusters"


def parse_cluster(text: str) -> Cluster:
    data: dict[str, Any] = json.loads(text)
    data["port_mappings"] = [PortMapping(**mapping) for mapping in data["port_mappings"]]
    for key in ("creator", "launcher", "supervisor", "forwarder"):
        data[key] = Process(**data[key]) if data[key] else None
    return Cluster(**data)


def find_cluster(name: str) -> Cluster | None:
    try:
        return parse_cluster((clusters_dir() / name / "cluster.json").read_text())
    except FileNotFoundError:
        return None


def read_cluster(name: str) -> Cluster:
    cluster = find_cluster(name)
    if cluster is None:
        raise KindlessError(f'no nodes found for cluster "{name}"')
    return cluster


def list_clusters() -> list[Cluster]:
    names = sorted(path.parent.name for path in clusters_dir().glob("*/cluster.json"))
    return [cluster for name in names if (cluster := find_cluster(name))]


def check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,40}", name):
        raise KindlessError(f"'{name}' is not a valid cluster name: use up to 41 of a-z, 0-9, '.' and '-'")
    socket = clusters_dir() / name / "c.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        raise KindlessError(f"{socket} is too long for a unix socket: choose a shorter name, or set STOKER_CACHE")


@contextmanager
def allocation_lock() -> Iterator[None]:
    """Held while a name, a number and a port are chosen."""
    clusters_dir().mkdir(parents=True, exist_ok=True)
    with (clusters_dir() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
