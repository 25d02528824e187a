"""The first process inside a cluster: PID 1 of its own namespaces, or the plain parent of a bare control plane.

`create` starts one of these functions and answers for everything on the machine's side; see create.py.
"""

import os
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

from . import components
from .api import Api
from .cluster import Cluster, read_cluster
from .preflight import overlay_works
from .supervisor import Supervisor, etcd_is_healthy

PROCESSES = "processes"


def run_control_plane(name: str) -> NoReturn:
    """API server, etcd, controllers: ordinary processes of this user, without namespaces."""
    supervisor = new_supervisor(name)
    supervisor.wait_for_go()
    cluster = read_cluster(name)
    # Bound, never listening: keeps the port ours until the API server shares it, and after a crash of it, too.
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", cluster.api_port))
    start_control_plane(supervisor, cluster)
    supervisor.run_forever()


def run_node(name: str) -> NoReturn:
    """A whole node over the machine's own root file system."""
    supervisor = new_supervisor(name)
    supervisor.wait_for_go()
    cluster = read_cluster(name)
    subprocess.run(["hostname", cluster.node_name], check=True)
    mount_private_paths(cluster)
    hide_kubelet_sysctls(cluster)
    join_network(cluster)
    components.write_node_config(cluster, "overlayfs" if overlay_works(cluster.directory) else "native")
    supervisor.start("containerd", components.containerd(cluster))
    start_control_plane(supervisor, cluster)
    supervisor.start("kubelet", components.kubelet(cluster))
    supervisor.start("kube-proxy", components.kube_proxy(cluster))
    supervisor.start("netpol", components.netpol(cluster))
    supervisor.run_forever()


def new_supervisor(name: str) -> Supervisor:
    directory = read_cluster(name).directory
    (directory / PROCESSES).mkdir(exist_ok=True)
    return Supervisor(directory / "log", directory / PROCESSES)


def start_control_plane(supervisor: Supervisor, cluster: Cluster) -> None:
    supervisor.start("etcd", components.etcd(cluster))
    supervisor.wait_until(lambda: etcd_is_healthy(cluster.etcd_socket), "etcd")
    supervisor.start("kube-apiserver", components.apiserver(cluster))
    api = Api(cluster.supervisor_endpoint, cluster.pki)
    supervisor.wait_until(lambda: api.answers("/readyz"), "kube-apiserver")
    supervisor.start("kube-controller-manager", components.controller_manager(cluster))
    supervisor.start("kube-scheduler", components.scheduler(cluster))
    if cluster.kwok_nodes:
        supervisor.start("kwok", components.kwok(cluster))


def mount_private_paths(cluster: Cluster) -> None:
    """Every path that a component writes outside its own folder becomes the cluster's own; all of it ends with the namespace."""
    directory = cluster.directory
    mount("--make-rshared", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for source, target in (("kubelet", "/var/lib/kubelet"), ("varlog", "/var/log")):
        (directory / source).mkdir()
        mount("--bind", directory / source, target)
    mount("--make-rshared", "/var/lib/kubelet")
    mount("-t", "tmpfs", "-o", "mode=700", "tmpfs", "/var/lib/cni")  # libcni's result cache ignores dataDir
    (directory / "etcd").mkdir(mode=0o700)
    mount("-t", "tmpfs", "-o", "mode=700,size=1g", "tmpfs", directory / "etcd")


def hide_kubelet_sysctls(cluster: Cluster) -> None:
    shown = cluster.directory / "sysctl"
    shown.mkdir()
    for name, value in components.KUBELET_SYSCTLS.items():
        file = shown / name.replace("/", "_")
        file.write_text(f"{value}\n")
        mount("--bind", file, f"/proc/sys/{name}")


def join_network(cluster: Cluster) -> None:
    ip("link", "set", "lo", "up")
    ip("addr", "add", f"{cluster.node_ip}/30", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    # Without any route, connect() to a ClusterIP fails in a node process before NAT sees it: webhooks, aggregation.
    ip("route", "add", cluster.service_cidr, "dev", "eth0", "src", cluster.node_ip)
    # Nothing leaves the machine, and callers learn it at once instead of by a time-out.
    ip("route", "add", "unreachable", "default")
    for key, value in {
        "ip_forward": 1,
        "conf/all/rp_filter": 0,
        "conf/default/rp_filter": 0,
        "conf/all/route_localnet": 1,
    }.items():
        Path(f"/proc/sys/net/ipv4/{key}").write_text(str(value))


def mount(*arguments: str | os.PathLike[str]) -> None:
    subprocess.run(["mount", *arguments], check=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
