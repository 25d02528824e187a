"""A whole node does what a cluster does: DNS, Services, volumes, policies, limits, ports of the machine."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kindless.paths import cache_dir
from ports import free_port

from .conftest import Kind, needs_root

pytestmark = [pytest.mark.kindless, needs_root]

BUSYBOX = "docker.io/library/busybox:1.37"
NODE_PORT = 30080
TIMED_OUT = "exit code 143"
IMAGE_BUILDER = Path(__file__).resolve().parents[2] / "hack" / "images" / "build"


@pytest.fixture(scope="module")
def host_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(module_kind: Kind, host_port: int) -> Kind:
    """With a web server behind a Service of type NodePort."""
    config = {"nodes": [{"extraPortMappings": [{"containerPort": NODE_PORT, "hostPort": host_port}]}]}
    (module_kind.cache / "config.yaml").write_text(json.dumps(config))
    module_kind("create", "cluster", "--name", "n", "--config", str(module_kind.cache / "config.yaml"))
    subprocess.run([IMAGE_BUILDER, "--world", "buildah", "busybox"], check=True)
    (module_kind.cache / "containers").symlink_to(cache_dir() / "containers")
    module_kind("load", "docker-image", "--name", "n", "busybox:1.37")
    server = ["sh", "-c", "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8000 -h /w"]
    apply(module_kind, pod("web", server, labels={"app": "web"}))
    port = {"port": 80, "targetPort": 8000, "nodePort": NODE_PORT}
    spec = {"type": "NodePort", "selector": {"app": "web"}, "ports": [port]}
    apply(module_kind, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    apply(module_kind, pod("client", ["sleep", "3600"], labels={"app": "client"}))
    module_kind.kubectl("wait", "pod/web", "pod/client", "--for=condition=Ready", "--timeout=120s")
    return module_kind


def pod(name: str, command: list[str], labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "busybox:1.37", "command": command, **container}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": containers, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0},
    }


def apply(kind: Kind, *objects: dict[str, Any]) -> None:
    kind.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def fetch_from_client(kind: Kind, url: str) -> str:
    return kind.kubectl("exec", "client", "--", "timeout", "2", "wget", "-q", "-O", "-", url, check=False)


def test_pods_reach_services_by_name(node: Kind) -> None:
    wait_until_fetched(node, "hello", "http://web.default.svc.cluster.local")
    wait_until_fetched(node, "hello")


def test_names_and_addresses_outside_fail_at_once(node: Kind) -> None:
    # Not with what `timeout` says after two seconds; a machine that is busy with something else may need a second try.
    wait_until_fetched(node, "bad address", "http://example.com")
    wait_until_fetched(node, "No route to host", "http://192.0.2.1")


def test_services_answer_on_the_machine(node: Kind, host_port: int) -> None:
    cluster_ip = node.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    for address in (f"http://{cluster_ip}", f"http://127.0.0.1:{host_port}"):
        with urllib.request.urlopen(address, timeout=30) as response:
            assert response.read() == b"hello\n"


def test_a_claim_gets_a_volume_which_goes_with_it(node: Kind) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    writer = pod("writer", ["sh", "-c", "echo kept > /data/file"], volumeMounts=[{"name": "d", "mountPath": "/data"}])
    writer["spec"]["volumes"] = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    apply(node, claim, writer)
    node.kubectl("wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    volume = node.kubectl("get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}")
    path = Path(node.kubectl("get", "pv", volume, "-o", "jsonpath={.spec.hostPath.path}"))
    assert (path / "file").read_text() == "kept\n"
    node.kubectl("delete", "pod/writer", "pvc/data")
    node.kubectl("wait", f"pv/{volume}", "--for=delete", "--timeout=120s")
    assert not path.exists()


@pytest.fixture
def policy(node: Kind) -> Iterator[dict[str, Any]]:
    """Selects the web server; the test says what may come in."""
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
    }
    node.kubectl("delete", "networkpolicy", "web")


def test_a_network_policy_is_enforced(node: Kind, policy: dict[str, Any]) -> None:
    apply(node, policy)
    wait_until_fetched(node, TIMED_OUT)
    policy["spec"]["ingress"] = [
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8000}]}
    ]
    apply(node, policy)
    wait_until_fetched(node, "hello")
    policy["spec"]["ingress"][0]["ports"] = [{"port": 9000}]
    apply(node, policy)
    wait_until_fetched(node, TIMED_OUT)
    policy["spec"]["ingress"] = [
        {"from": [{"ipBlock": {"cidr": "2001:db8::/32"}}, {"ipBlock": {"cidr": "10.252.0.0/16"}}]}
    ]
    apply(node, policy)
    wait_until_fetched(node, "hello")


def wait_until_fetched(node: Kind, expected: str, url: str = "http://web") -> None:
    """Rules follow a policy within a second or so."""
    deadline = time.monotonic() + 60
    while expected not in (shown := fetch_from_client(node, url)):
        assert time.monotonic() < deadline, shown


def test_a_container_over_its_memory_limit_is_killed(node: Kind) -> None:
    eater = pod("eater", ["sh", "-c", "x=x; while true; do x=$x$x; done"], resources={"limits": {"memory": "32Mi"}})
    apply(node, eater)
    reason = "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}=OOMKilled"
    node.kubectl("wait", "pod/eater", reason, "--timeout=120s")


def test_a_pod_waits_until_the_node_offers_a_gpu(node: Kind) -> None:
    apply(node, pod("gpu", ["sleep", "3600"], resources={"limits": {"nvidia.com/gpu": "1"}}))
    unschedulable = "--for=jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
    node.kubectl("wait", "pod/gpu", unschedulable, "--timeout=120s")
    offer = [
        {"op": "add", "path": f"/status/{field}/nvidia.com~1gpu", "value": "4"} for field in ("capacity", "allocatable")
    ]
    node.kubectl("patch", "node", "n-control-plane", "--subresource=status", "--type=json", "-p", json.dumps(offer))
    node.kubectl("wait", "pod/gpu", "--for=condition=Ready", "--timeout=120s")


def test_an_image_that_is_not_there_is_refused(node: Kind) -> None:
    missing = node("load", "docker-image", "--name", "n", "nothing:1", check=False)
    assert (missing.returncode, missing.stderr.strip()) == (1, 'ERROR: image: "nothing:1" not present locally')


def test_a_component_that_dies_is_started_again(node: Kind) -> None:
    """The API server's clients see a gap; the pods see nothing."""
    started = node.kubectl("get", "pod", "web", "-o", "jsonpath={.status.startTime}")
    record = json.loads((node.cache / "clusters" / "n" / "cluster.json").read_text())
    log = node.cache / "clusters" / "n" / "log" / "supervisor.log"
    inside = f"/proc/{record['supervisor']['pid']}/task/{record['supervisor']['pid']}/children"
    for pid in Path(inside).read_text().split():
        if "kube-apiserver" in Path(f"/proc/{pid}/cmdline").read_text():
            subprocess.run(["kill", "-9", pid], check=True)
    deadline = time.monotonic() + 90
    while "kube-apiserver ended with -9; starting it again" not in log.read_text():
        assert time.monotonic() < deadline
    while "web" not in node.kubectl("get", "pods", check=False):
        assert time.monotonic() < deadline
    assert node.kubectl("get", "pod", "web", "-o", "jsonpath={.status.startTime}") == started
