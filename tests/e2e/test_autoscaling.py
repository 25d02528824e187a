"""A model follows its load, from zero up to what the devices allow and back to zero, and no request is lost on the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from e2e import objects
from e2e.client import Gateway, NodePort, read_key
from e2e.devices import CPU_IMAGE, offer, only_node
from e2e.kube import Kube, Object, until

STREAMS = 12
MODEL = "smollm2"
PODS = f"stoker.dev/model-deployment={MODEL}"
SCALING = {"minReplicas": 0, "maxReplicas": 3, "initialHoldSeconds": 8, "minHoldSeconds": 4, "maxHoldSeconds": 8}


@pytest.fixture
def node(kube: Kube) -> Iterator[str]:
    """The node, with two devices that are not there; without them again at the end."""
    name = only_node(kube)
    offer(kube, name, 2)
    yield name
    offer(kube, name, 0)


@dataclass
class Load:
    """Callers who stream one answer after the other until they are told to stop."""

    gateway: Gateway
    tokens: int = 60
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, callers: int) -> Load:
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(180)

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self.gateway.stream(self.tokens).await_end()
                self.answered += 1
            except AssertionError as error:
                self.failed.append(str(error))
                return


@dataclass
class Watcher:
    """Every status of the model, one after the other, as long as it is watched."""

    kube: Kube
    namespace: str
    seen: list[tuple[int, str, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Watcher:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            status = read_status(self.kube, self.namespace)
            scaling = status.get("autoscaling") or {}
            now = (status.get("desiredReplicas", 0), scaling.get("reason", ""), scaling.get("message", ""))
            if not self.seen or self.seen[-1] != now:
                self.seen.append(now)


def read_status(kube: Kube, namespace: str) -> Object:
    return (kube.get("modeldeployments", namespace, MODEL) or {}).get("status") or {}


def serving(kube: Kube, namespace: str, count: int) -> Callable[[], bool]:
    return lambda: read_status(kube, namespace).get("readyReplicas", 0) == count


def test_a_model_goes_from_zero_to_what_the_devices_allow_and_back_without_losing_a_request(
    request: pytest.FixtureRequest,
    kube: Kube,
    make_namespace: Callable[[str], str],
    next_port: Callable[[], NodePort],
    node: str,
) -> None:
    namespace, port = make_namespace("e2e-autoscaling"), next_port()
    kube.apply(
        objects.engine(namespace, accelerator={"vendor": "NVIDIA"}, image=CPU_IMAGE),
        objects.model(namespace, MODEL, gpus=1, autoscaling=SCALING),
        objects.gateway(namespace, port.node_port),
    )
    kube.wait_ready(f"modeldeployment/{MODEL}", "apigateway/gateway", "apikey/gateway-admin", namespace=namespace)
    assert kube.condition("modeldeployments", namespace, MODEL)["reason"] == "Sleeping"
    assert not kube.pods(namespace, PODS)
    gateway = Gateway(port.host_port, read_key(kube, namespace, "gateway-admin"), MODEL)
    until(lambda: gateway.request("GET", "/v1/models").status == 200, "the gateway serves")
    watcher = Watcher(kube, namespace).start()
    request.addfinalizer(watcher.stop)

    began = time.monotonic()
    gateway.stream(4).await_end()
    print(f"first answer of a sleeping model after {time.monotonic() - began:.1f} s")
    assert read_status(kube, namespace)["desiredReplicas"] == 1

    load = Load(gateway).start(STREAMS)
    until(serving(kube, namespace, 2), "two replicas serve, as many as there are devices")
    stuck = until(
        lambda: [pod for pod in kube.pods(namespace, PODS) if not pod["spec"].get("nodeName")],
        "a third without a place",
    )
    assert len(stuck) == 1
    offer(kube, node, 3)
    until(serving(kube, namespace, 3), "three replicas serve")
    load.stop()
    assert not load.failed
    assert load.answered >= STREAMS

    until(lambda: read_status(kube, namespace)["desiredReplicas"] == 0, "it sleeps again")
    kube.kubectl("wait", "--for=condition=Ready", f"modeldeployment/{MODEL}", "-n", namespace, "--timeout=180s")
    until(lambda: not kube.pods(namespace, PODS), "its pods are gone")
    watcher.stop()

    numbers = [desired for desired, _, _ in watcher.seen]
    print("\n".join(f"{desired}: {message} ({reason})" for desired, reason, message in watcher.seen))
    assert max(numbers) == 3
    assert all(reason and message for _, reason, message in watcher.seen[1:])
    told = [
        event["note"]
        for event in json.loads(kube.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json"))["items"]
        if event["reason"] in ("ScaledUp", "ScaledDown")
    ]
    changes = sum(before != after for before, after in pairwise(numbers))
    assert len(told) >= changes >= 2
    kube.kubectl("delete", "stoker", "--all", "-n", namespace)
