"""Making a cluster: what happens on the machine's side, in order."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .addons import addons, kwok_node
from .api import Api, JsonObject, wait_until
from .cgroups import make_cgroups
from .cleanup import destroy, make_mount_points, sweep
from .cluster import Cluster, PortMapping, allocation_lock, check_name, find_cluster, list_clusters
from .components import PAUSE_IMAGE
from .errors import KindlessError
from .images import import_archive, write_one_file_image
from .kubeconfig import add_entries
from .paths import ENTRY
from .pki import write_pki
from .preflight import check_machine
from .process import Process
from .progress import say
from .supervisor import GO
from .tools import kubebox_dir

NAMESPACES = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    name: str
    kubeconfig: Path
    control_plane_only: bool = False
    port_mappings: Sequence[PortMapping] = ()
    kwok_nodes: int = 0
    kwok_capacity: Mapping[str, str] = field(default_factory=dict)
    retain: bool = False
    quiet: bool = False


def create(wish: Wish) -> None:
    check_name(wish.name)
    sweep()
    if wish.control_plane_only and wish.port_mappings:
        raise KindlessError("extraPortMappings need a node: leave them out, or leave out --control-plane-only")
    if not wish.control_plane_only:
        check_machine()
    tools = kubebox_dir()
    started = time.monotonic()

    def step(message: str) -> None:
        if not wish.quiet:
            say(f" {time.monotonic() - started:5.1f}s  {message}")

    cluster = reserve(wish, tools)
    try:
        if cluster.control_plane_only:
            bring_up_control_plane(cluster, step)
        else:
            bring_up_node(cluster, step)
        if wish.kwok_nodes:
            add_kwok_nodes(cluster, wish.kwok_capacity)
            step(f"{wish.kwok_nodes} KWOK nodes Ready")
        add_entries(cluster, wish.kubeconfig)
        cluster.phase = "Ready"
        cluster.save()
    except BaseException as error:
        if wish.retain:
            cluster.phase = "Failed"
            cluster.save()
            say(f"Logs are kept in {cluster.logs}")
        else:
            if isinstance(error, KindlessError):
                show_logs(cluster)
            destroy(cluster)
        raise
    step("ready")


def reserve(wish: Wish, tools: Path) -> Cluster:
    """Choose name, number and port, and note them before anything exists that would have to be removed."""
    with allocation_lock():
        existing = find_cluster(wish.name)
        if existing:  # sweep() has taken the dead ones away
            raise KindlessError(f'node(s) already exist for a cluster with the name "{wish.name}"')
        cluster = Cluster(
            name=wish.name,
            control_plane_only=wish.control_plane_only,
            api_port=free_port(),
            tools=str(tools),
            port_mappings=list(wish.port_mappings),
            kwok_nodes=wish.kwok_nodes,
            creator=Process.of(os.getpid()),
        )
        if not cluster.control_plane_only:
            taken = {other.number for other in list_clusters() if not other.control_plane_only}
            free = [number for number in range(250) if number not in taken and not link_exists(number)]
            if not free:
                raise KindlessError("250 clusters exist on this machine already: delete some")
            cluster.number = free[0]
        cluster.save()
    cluster.logs.mkdir()
    return cluster


def link_exists(number: int) -> bool:
    return Path(f"/sys/class/net/stk{number}").exists()


def free_port() -> int:
    taken = {cluster.api_port for cluster in list_clusters()}
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


def bring_up_control_plane(cluster: Cluster, step: Callable[[str], None]) -> None:
    write_pki(cluster)
    launched = launch(cluster, [])
    cluster.supervisor = identify(launched)
    cluster.save()
    release(launched)
    wait_for_api(cluster)
    step("API server ready")


def bring_up_node(cluster: Cluster, step: Callable[[str], None]) -> None:
    make_mount_points()
    run("ip", "link", "add", cluster.link, "type", "veth", "peer", "name", f"{cluster.link}n")
    cluster.has_link = True
    cluster.save()
    write_pki(cluster)
    (cluster.directory / "volumes").mkdir()
    make_cgroups(cluster.cgroup)
    lifeline_end, lifeline = os.pipe()
    launched = launch(cluster, ["unshare", *NAMESPACES, "--propagation", "private"], keep_open=lifeline)
    os.close(lifeline)
    cluster.launcher = identify(launched)
    cluster.supervisor = first_process(launched)
    connect(cluster)
    cluster.forwarder = start_forwarder(cluster, lifeline_end)
    os.close(lifeline_end)
    cluster.save()
    release(launched)
    step("namespaces and network")
    import_pause_image(cluster)
    api = wait_for_api(cluster)
    step("API server ready")
    for path, body in addons(cluster):
        api.create(path, body)
    wait_for_node(cluster, api)
    step("node Ready")
    for name in ("coredns", "provisioner"):
        path = f"/apis/apps/v1/namespaces/kube-system/deployments/{name}"
        wait_until(lambda path=path: is_available(api.get(path)), f"deployment {name}", 120, lambda: cluster.running)  # type: ignore[misc]
    step("DNS and volumes ready")


def launch(cluster: Cluster, wrapper: Sequence[str], keep_open: int | None = None) -> subprocess.Popen[str]:
    """Start the supervisor; it waits for our word, and ends without it if we are killed before we have noted its number."""
    entry = "_control-plane" if cluster.control_plane_only else "_node"
    with (cluster.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [*wrapper, sys.executable, str(ENTRY), entry, cluster.name],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            cwd="/",
            start_new_session=True,
            pass_fds=[keep_open] if keep_open is not None else [],
        )


def release(launched: subprocess.Popen[str]) -> None:
    if launched.stdin is None:
        raise RuntimeError("launched without a pipe")
    try:
        launched.stdin.write(f"{GO}\n")
        launched.stdin.close()
    except BrokenPipeError:
        raise KindlessError("the cluster's first process ended at once") from None


def identify(launched: subprocess.Popen[str]) -> Process:
    process = Process.of(launched.pid)
    if process is None:
        raise KindlessError("the cluster's first process ended at once")
    return process


def first_process(unshare: subprocess.Popen[str]) -> Process:
    """unshare's only child: PID 1 inside, once it is in a network namespace of its own."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    own_network = os.readlink("/proc/self/ns/net")
    while unshare.poll() is None:
        numbers = children.read_text().split()
        process = Process.of(int(numbers[0])) if numbers else None
        if process and os.readlink(f"/proc/{process.pid}/ns/net") != own_network:
            return process
        time.sleep(0.005)
    raise KindlessError("unshare failed")


def connect(cluster: Cluster) -> None:
    """One veth pair; services and pods are routed through it, so that their addresses answer on the machine as well."""
    if cluster.supervisor is None:
        raise RuntimeError("no node to connect")
    run("ip", "link", "set", f"{cluster.link}n", "netns", str(cluster.supervisor.pid), "name", "eth0")
    run("ip", "addr", "add", f"{cluster.host_ip}/30", "dev", cluster.link)
    run("ip", "link", "set", cluster.link, "up")
    for cidr in (cluster.service_cidr, cluster.pod_cidr):
        run("ip", "route", "add", cidr, "via", cluster.node_ip, "dev", cluster.link)


def start_forwarder(cluster: Cluster, lifeline: int) -> Process:
    pairs = [f"127.0.0.1:{cluster.api_port}={cluster.node_ip}:6443"]
    pairs += [
        f"{mapping.listen_address}:{mapping.host_port}={cluster.node_ip}:{mapping.container_port}"
        for mapping in cluster.port_mappings
    ]
    log_file = cluster.logs / "forward.log"
    with log_file.open("ab") as log:
        command = [str(cluster.kubebox), "forward", *pairs]
        forwarder = subprocess.Popen(command, stdin=lifeline, stdout=log, stderr=log, cwd="/", start_new_session=True)
    while forwarder.poll() is None and "listening" not in log_file.read_text():
        time.sleep(0.01)
    if forwarder.poll() is not None:
        raise KindlessError(f"cannot forward ports: {log_file.read_text().strip()}")
    process = Process.of(forwarder.pid)
    if process is None:
        raise KindlessError("the port forwarder ended at once")
    return process


def import_pause_image(cluster: Cluster) -> None:
    archive = cluster.directory / "pause.tar"
    write_one_file_image(archive, PAUSE_IMAGE, Path(cluster.tools) / "pause")
    wait_until(cluster.containerd_socket.exists, "containerd", 60, lambda: cluster.running)
    import_archive(cluster, archive)
    archive.unlink()


def wait_for_api(cluster: Cluster) -> Api:
    """Also for the ServiceAccount `default`: pods that are created before it exists are refused."""
    api = Api(cluster.endpoint, cluster.pki)
    wait_until(lambda: api.answers("/readyz"), "the API server", 120, lambda: cluster.running)
    for path in ("/api/v1/namespaces/kube-system", "/api/v1/namespaces/default/serviceaccounts/default"):
        wait_until(lambda path=path: api.answers(path), path, 60, lambda: cluster.running)  # type: ignore[misc]
    return api


def wait_for_node(cluster: Cluster, api: Api) -> None:
    path = f"/api/v1/nodes/{cluster.node_name}"
    wait_until(lambda: api.answers(path), "the kubelet", 120, lambda: cluster.running)
    wait_until(lambda: is_ready(api.get(path)), "the node", 120, lambda: cluster.running)


def add_kwok_nodes(cluster: Cluster, capacity: Mapping[str, str]) -> None:
    api = Api(cluster.endpoint, cluster.pki)
    for index in range(cluster.kwok_nodes):
        api.create("/api/v1/nodes", kwok_node(cluster, index, capacity))

    def all_ready() -> bool:
        nodes = api.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]
        return len([node for node in nodes if is_ready(node)]) >= cluster.kwok_nodes

    wait_until(all_ready, "the KWOK nodes", 120, lambda: cluster.running)


def is_ready(node: JsonObject) -> bool:
    conditions = node.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def is_available(deployment: JsonObject) -> bool:
    wanted: int = deployment["spec"]["replicas"]
    available: int = deployment.get("status", {}).get("availableReplicas", 0)
    return available >= wanted


def show_logs(cluster: Cluster) -> None:
    """The end of each log, since the folder is about to go."""
    for log in sorted(cluster.logs.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-5:]
        if lines:
            say(f"--- {log.name}")
            for line in lines:
                say(f"    {line[:300]}")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KindlessError(f"{' '.join(command)}: {done.stderr.strip()}")
