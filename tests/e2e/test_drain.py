"""Answers that are under way finish, whatever goes away around them."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from e2e import objects
from e2e.client import PROBE_TOKENS, Gateway, NodePort, Service, read_key
from e2e.kube import Kube, until
from e2e.processes import Killer

ENGINE_PODS = "stoker.dev/model-deployment=smollm2"
GATEWAY_PODS = "stoker.dev/api-gateway=gateway,app.kubernetes.io/component=gateway"
STREAMS = 6
TRIES = 3
LONG = 20
"""Seconds: longer than the changes take until they reach what carries the stream."""


@pytest.fixture(scope="module")
def service(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Service:
    """Of this module's own: one replica of each model, so that what goes away is what serves, and two of the gateway."""
    namespace, port = make_namespace("e2e-drain"), next_port()
    kube.apply(
        objects.engine(namespace),
        objects.model(namespace, "smollm2", contextLength=4096, maxConcurrentRequests=4),
        objects.model(namespace, "many", contextLength=512, maxConcurrentRequests=2 * STREAMS),
        objects.gateway(namespace, port.node_port, replicas=2),
        objects.key(namespace, "counted"),
    )
    kube.wait_ready("modeldeployment/smollm2", "modeldeployment/many", namespace=namespace)
    kube.wait_ready("apigateway/gateway", "apikey/gateway-admin", "apikey/counted", namespace=namespace)
    return Service(namespace, Gateway(port.host_port, read_key(kube, namespace, "gateway-admin"), "smollm2"), "smollm2")


@contextmanager
def repeated(step: Callable[[], None], every: float) -> Iterator[None]:
    """One after the other while the block runs, with a pause between them."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)


@contextmanager
def steady_calls(gateway: Gateway) -> Iterator[list[str]]:
    """Short calls one after the other while the block runs; the list holds what was not answered with 200."""
    failed: list[str] = []

    def call() -> None:
        try:
            answer = gateway.chat(max_tokens=1)
            if answer.status != 200:
                failed.append(f"{answer.status} {answer.body[:200]!r}")
        except OSError as error:
            failed.append(repr(error))

    with repeated(call, every=0.5):
        yield failed


def only_pod(kube: Kube, service: Service, selector: str) -> str:
    (pod,) = until(lambda: len(found := kube.pods(service.namespace, selector)) == 1 and found, "one pod")
    name: str = pod["metadata"]["name"]
    return name


def is_gone(kube: Kube, service: Service, pod: str) -> bool:
    return kube.get("pods", service.namespace, pod) is None


def test_a_stream_outlives_a_rolling_update_of_its_engine_and_calls_go_on(kube: Kube, service: Service) -> None:
    old = only_pod(kube, service, ENGINE_PODS)
    stream = service.gateway.long_stream(LONG)
    with steady_calls(service.gateway) as failed:
        kube.patch(
            "modeldeployments", service.namespace, "smollm2", {"spec": {"env": [{"name": "NOTE", "value": "1"}]}}
        )
        until(lambda: old not in [p["metadata"]["name"] for p in kube.pods(service.namespace, ENGINE_PODS)], "the old pod leaves")  # fmt: skip
        assert stream.running, "the stream must be under way while the pod is taken away"
        stream.await_end()
    assert failed == []
    until(lambda: is_gone(kube, service, old), "the drained pod is gone")
    kube.wait_current("modeldeployments", service.namespace, "smollm2")


def test_a_stream_outlives_stopping_its_model_and_new_calls_are_told(kube: Kube, service: Service) -> None:
    old = only_pod(kube, service, ENGINE_PODS)
    stream = service.gateway.long_stream(LONG / 2)
    kube.kubectl("scale", "modeldeployment/smollm2", "-n", service.namespace, "--replicas=0")
    answer = until(lambda: (found := service.gateway.chat()).status == 503 and found, "new calls are refused")
    assert answer.error["code"] == "model_stopped"
    assert stream.running
    stream.await_end()
    until(lambda: is_gone(kube, service, old), "the drained pod is gone")
    kube.kubectl("scale", "modeldeployment/smollm2", "-n", service.namespace, "--replicas=1")
    kube.wait_current("modeldeployments", service.namespace, "smollm2")
    until(lambda: service.gateway.chat().status == 200, "calls are answered again")


def test_a_lost_gateway_pod_takes_only_its_own_streams_with_it(kube: Kube, service: Service, killer: Killer) -> None:
    """As with its machine: the object is deleted by force, and what ran is killed."""
    key = read_key(kube, service.namespace, "counted")
    many = Gateway(service.gateway.port, key, "many")
    streams = many.long_streams(STREAMS, seconds=8, longest=450)
    for stream in streams:
        stream.await_first_piece()
    running = {pod: in_flight(kube, service, pod) for pod in gateway_pods(kube, service)}
    assert sum(running.values()) == STREAMS, running
    lost = max(running, key=lambda pod: running[pod])
    containers = killer.running(service.namespace, lost).values()
    with calls_with_another_try(service.gateway) as calls:
        kube.kubectl("delete", "pod", lost, "-n", service.namespace, "--grace-period=0", "--force")
        killer.kill(containers)
        until(lambda: sum(bool(s.error) for s in streams) == running[lost], "its streams break off")
        until(lambda: len(ready := gateway_pods(kube, service)) == 2 and lost not in ready, "another pod")
        for stream in streams:
            if not stream.error:
                stream.await_end()
    assert sum(stream.complete for stream in streams) == STREAMS - running[lost]
    assert set(calls.statuses) == {200}
    assert calls.given_up == 0, calls.lost
    # What had come whole before, also by the lost pod, and what came whole in spite of it; nobody knows how far the others were.
    whole = [*[PROBE_TOKENS // 2] * STREAMS, *[stream.tokens for stream in streams if stream.complete]]

    def total() -> tuple[int, int, int]:
        found = json.loads(many.request("GET", "/v1/usage").body)["total"]
        return found["requests"], found["completion_tokens"], found["estimated_requests"]

    until(lambda: total()[0] >= len(whole), "what came whole is counted")
    assert total() == (len(whole), sum(whole), 0)


@dataclass
class Calls:
    """Of a client who tries again when his connection fails."""

    statuses: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    given_up: int = 0


@contextmanager
def calls_with_another_try(gateway: Gateway) -> Iterator[Calls]:
    """One after the other while the block runs."""
    calls = Calls()

    def call() -> None:
        for _ in range(TRIES):
            try:
                calls.statuses.append(gateway.chat(max_tokens=1).status)
                break
            except (OSError, http.client.HTTPException) as error:
                calls.lost.append(repr(error))
        else:
            calls.given_up += 1

    with repeated(call, every=0.1):
        yield calls


def in_flight(kube: Kube, service: Service, pod: str) -> int:
    """Requests that a gateway's pod has under way."""
    lines = kube.proxied(service.namespace, f"pods/{pod}:9090", "metrics").splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("stoker_gateway_in_flight{"))


def gateway_pods(kube: Kube, service: Service) -> list[str]:
    """The ready ones."""
    return [
        pod["metadata"]["name"]
        for pod in kube.pods(service.namespace, GATEWAY_PODS)
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]


def test_a_stream_outlives_its_gateway_pod_and_calls_go_on(kube: Kube, service: Service) -> None:
    streams = [service.gateway.long_stream(LONG / 2) for _ in range(2)]
    with steady_calls(service.gateway) as failed:
        # Every gateway pod is replaced, so whichever carries the streams is among them.
        kube.kubectl("rollout", "restart", "deployment/gateway", "-n", service.namespace)
        kube.kubectl("rollout", "status", "deployment/gateway", "-n", service.namespace, "--timeout=120s")
        for stream in streams:
            stream.await_end()
    assert failed == []


@pytest.mark.parametrize("process", ["policy", "relay"])
def test_a_stream_outlives_a_crash_beside_envoy_and_calls_come_back_at_once(
    kube: Kube, service: Service, killer: Killer, process: str
) -> None:
    """At once: half a second, as tests/gateway measures; here other work on the machine counts in. The kubelet would take 10 s and more."""
    stream = service.gateway.long_stream(LONG / 3)

    def carries() -> list[str] | None:
        # What a killed process had counted is put right after two seconds.
        found = [pod for pod in gateway_pods(kube, service) if in_flight(kube, service, pod)]
        return found if len(found) == 1 else None

    (pod,) = until(carries, "one pod carries the stream")
    killer.sigkill(service.namespace, pod, "policy", process)
    until(lambda: service.gateway.chat().status == 200, "calls are answered again", within=8)
    until(lambda: service.gateway.request("GET", "/v1/models").status == 200, "the list, too", within=8)
    assert stream.running
    stream.await_end()


def test_a_pod_whose_engine_still_loads_goes_at_once(kube: Kube, service: Service) -> None:
    """An engine that loads has no signal handlers yet and never was ready: there is nothing to wait for. Here `sleep` loads."""
    loading = {"spec": {"containers": [{"name": "engine", "command": ["sleep"], "args": ["3600"]}]}}
    kube.apply(
        objects.engine(service.namespace, "loads", image="docker.io/library/busybox:1.37", podTemplate=loading),
        objects.model(service.namespace, "loads", engineRef={"name": "loads"}),
    )
    kube.wait_reason("modeldeployments", service.namespace, "loads", "EngineLoading")
    pod = only_pod(kube, service, "stoker.dev/model-deployment=loads")
    kube.delete("modeldeployments", service.namespace, "loads")
    until(lambda: is_gone(kube, service, pod), "the pod is gone", within=25)


def test_a_pod_that_serves_is_used_at_once(kube: Kube, service: Service) -> None:
    old = only_pod(kube, service, ENGINE_PODS)
    kube.kubectl("delete", "pod", old, "-n", service.namespace, "--wait=false")
    answer = until(lambda: (found := service.gateway.chat()).status == 503 and found, "no engine")
    assert answer.error["code"] == "model_not_ready"
    assert int(answer.headers["retry-after"]) > 0
    # The gateway knows before the status does that the old pod goes; Ready must be the new one's.
    model = ("modeldeployment/smollm2", "-n", service.namespace)
    kube.kubectl("wait", "--for=condition=Ready=false", *model, "--timeout=180s")
    kube.wait_ready("modeldeployment/smollm2", namespace=service.namespace)
    until(lambda: service.gateway.chat().status == 200, "the new pod is used", within=5)
