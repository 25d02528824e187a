"""One cluster for the whole run: kubelet, containers, images, the chart, real llama.cpp with a real small model."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e import objects
from e2e.client import Gateway, NodePort, Service, read_key
from e2e.kube import OPERATOR, OPERATOR_NAMESPACE, Kube, Object
from e2e.operators import Operators
from e2e.processes import Killer
from e2e.sources import Sources
from pytest_kind import KindCluster

ROOT = objects.ROOT
BIN = ROOT / ".stoker" / "bin"
STATE = ROOT / ".stoker" / "e2e"
CLUSTER = "stoker-e2e"
QUICKSTART_NODE_PORT: int = objects.quickstart()["ApiGateway"]["spec"]["expose"]["nodePort"]
NODE_PORTS = range(30100, 30112)
"""For gateways that tests make; each is bound to a free port on the host's loopback."""

set_up: list[tuple[str, float]] = []
stash = pytest.StashKey[Kube]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The set-up is the dear part of the run, and durations would book it on whichever test comes first."""
    if set_up:
        terminalreporter.section("set-up of the end-to-end tests")
        for what, seconds in set_up:
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the cluster looked like at that moment."""
    report = yield
    kube = item.session.stash.get(stash, None)
    if report.failed and kube:
        for title, command in {
            "objects": ["get", "stoker,pods", "-A", "-o", "wide"],
            "events": ["get", "events", "-A", "--sort-by=.lastTimestamp"],
            "operator": ["logs", "-n", OPERATOR_NAMESPACE, f"deployment/{OPERATOR}", "--all-pods", "--tail=60"],
        }.items():
            try:
                said = kube.kubectl(*command)
            except AssertionError as error:
                said = str(error)
            report.sections.append((title, "\n".join(said.splitlines()[-120:])))
    return report


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    set_up.append((what, time.monotonic() - start))


@pytest.fixture(scope="session")
def kind_cluster(request: pytest.FixtureRequest) -> Iterator[KindCluster]:
    """pytest-kind's cluster, with node ports on the host; a cluster that this suite did not make is never touched.

    --keep-cluster leaves it there for the next run, which then starts in seconds.
    """
    options = request.config.option
    if options.kubeconfig:
        pytest.exit("the end-to-end tests run only on a cluster that they make themselves: leave out --kubeconfig", 4)
    if not options.kind_bin:
        with timed("tools"):
            subprocess.run([ROOT / "hack" / "tools", "ensure"], check=True)
    cluster = KindCluster(
        CLUSTER if options.cluster_name == "pytest-kind" else options.cluster_name,
        STATE / "kubeconfig",
        image=options.kind_image,
        kind_path=Path(options.kind_bin or BIN / "kind"),
        kubectl_path=Path(options.kind_kubectl_bin or BIN / "kubectl"),
    )
    if not is_there_and_usable(cluster, keep=options.keep_cluster):
        shutil.rmtree(STATE, ignore_errors=True)
        STATE.mkdir(parents=True)
        (STATE / "made").write_text(cluster.name)
        (STATE / "ports.json").write_text(json.dumps(choose_ports()))
    config = STATE / "kind.yaml"
    config.write_text(yaml.safe_dump(cluster_config(read_ports())))
    with timed("cluster"):
        cluster.create(config)
    yield cluster
    if not options.keep_cluster:
        with timed("cluster removed"):
            cluster.delete()
        shutil.rmtree(STATE)


def is_there_and_usable(cluster: KindCluster, *, keep: bool) -> bool:
    """A cluster of this name is used again, or removed, only where an earlier run left a note that it made it."""
    if cluster.name not in subprocess.check_output([cluster.kind_path, "get", "clusters"], encoding="utf-8").split():
        return False
    note = STATE / "made"
    if not note.exists() or note.read_text() != cluster.name:
        pytest.exit(
            f"there is a cluster {cluster.name} that these tests did not make; if it may go: "
            f"{cluster.kind_path} delete cluster --name {cluster.name}",
            4,
        )
    ready = subprocess.run(
        [cluster.kubectl_path, "get", "--raw", "/readyz"],
        env={"KUBECONFIG": str(cluster.kubeconfig_path)},
        capture_output=True,
    )
    if keep and ready.returncode == 0:
        return True
    cluster.delete()
    return False


def choose_ports() -> dict[int, int]:
    """Free ports on the host for the node ports, outside the range that outgoing connections take theirs from."""
    free: dict[int, int] = {}
    candidates = iter(range(21000, 32000))
    for node_port in (QUICKSTART_NODE_PORT, *NODE_PORTS):
        for candidate in candidates:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", candidate)):
                    free[node_port] = candidate
                    break
    return free


def read_ports() -> dict[int, int]:
    return {int(node_port): host for node_port, host in json.loads((STATE / "ports.json").read_text()).items()}


def cluster_config(ports: dict[int, int]) -> Object:
    mappings = [
        {"listenAddress": "127.0.0.1", "hostPort": host, "containerPort": node_port}
        for node_port, host in ports.items()
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
    }


@pytest.fixture(scope="session")
def kube(kind_cluster: KindCluster, request: pytest.FixtureRequest) -> Kube:
    """The cluster with Stoker in it, two replicas of the operator, and a web server with the model."""
    kube = Kube(kind_cluster)
    request.session.stash[stash] = kube
    with timed("images into the cluster"):
        subprocess.run([ROOT / "hack" / "images" / "build", "--load", kind_cluster.name], check=True)
    with timed("helm install, model server"):
        again = kube.get("deployments", OPERATOR_NAMESPACE, OPERATOR) is not None
        kube.kubectl("apply", "-f", str(ROOT / "hack" / "demo-models.yaml"))
        helm = [BIN / "helm", "upgrade", "--install", "stoker", ROOT / "charts" / "stoker"]
        helm += [
            "--namespace",
            OPERATOR_NAMESPACE,
            "--create-namespace",
            "--set",
            "replicas=2",
            "--wait",
            "--timeout",
            "5m",
        ]
        environment = {"KUBECONFIG": str(kind_cluster.kubeconfig_path), "HOME": str(STATE)}
        subprocess.run([str(part) for part in helm], env=environment, check=True, stdout=subprocess.DEVNULL)
        if again:
            # A kept cluster may run an older image under the same tag.
            kube.kubectl("rollout", "restart", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE)
            kube.kubectl("rollout", "status", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, "--timeout=120s")
        kube.kubectl("rollout", "status", "deployment/models", "-n", "stoker-demo", "--timeout=180s")
    return kube


@pytest.fixture(scope="session")
def killer(kube: Kube) -> Killer:
    return Killer(kube)


@pytest.fixture(scope="session")
def operators(kube: Kube) -> Operators:
    return Operators(kube)


@pytest.fixture(scope="session")
def sources(kube: Kube) -> Sources:
    """A source of weights that misbehaves when told to."""
    with timed("misbehaving source"):
        return Sources(kube, image=kube.stoker_image())


@pytest.fixture(scope="session")
def make_namespace(kube: Kube) -> Iterator[Callable[[str], str]]:
    """Namespaces under the strictest Pod Security level; they are gone when the run ends."""
    made: set[str] = set()

    def make(name: str) -> str:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        # Only a cluster that was kept has one: nobody waits for its streams.
        kube.kubectl("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0", "--wait=false")
        kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        made.add(name)
        return name

    yield make
    if made:
        kube.kubectl("delete", "namespace", *made, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def next_port(kind_cluster: KindCluster) -> Callable[[], NodePort]:
    """Node ports that no other test uses."""
    numbers = itertools.count(NODE_PORTS.start)
    ports = read_ports()

    def take() -> NodePort:
        number = next(numbers)
        return NodePort(number, ports[number])

    return take


@pytest.fixture(scope="session")
def quickstart_port(kind_cluster: KindCluster) -> int:
    """Where the quickstart's gateway answers on the host."""
    return read_ports()[QUICKSTART_NODE_PORT]


@pytest.fixture(scope="session")
def service(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Service:
    """Shared by the tests that only use it."""
    with timed("a model and a gateway Ready"):
        namespace, port = make_namespace("e2e-service"), next_port()
        kube.apply(
            objects.gateway(namespace, port.node_port, replicas=2),
            objects.model(namespace, "smollm2", aliases=["gpt-4o-mini"]),
            objects.engine(namespace),
        )
        kube.wait_ready("inferenceengine/llama-cpp", "modeldeployment/smollm2", "apigateway/gateway", "apikey/gateway-admin", namespace=namespace)  # fmt: skip
    return Service(namespace, Gateway(port.host_port, read_key(kube, namespace, "gateway-admin"), "smollm2"), "smollm2")
