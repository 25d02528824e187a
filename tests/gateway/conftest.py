"""One gateway pod for all tests here (real Envoy, policy and relay; fake API server and engines), back in its first state for each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gateway.fake_engine import FakeEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod, until

MARKERS = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the gateways said last."""
    report = yield
    if report.failed:
        for pod in GatewayPod.made:
            report.sections.extend(pod.last_words().items())
    return report


@dataclass
class World:
    """Everything around the gateway."""

    kubernetes: FakeKubernetes
    engines: list[FakeEngine]
    pod: GatewayPod
    current: Config = field(default_factory=Config)
    """What a test that changes its configuration begins with."""

    def apply(self, config: Config) -> None:
        """Take it over: when a key that is new with it opens the gateway, nothing older is in force any more."""
        name = f"marker-{next(MARKERS)}"
        config.key(name, f"sk-{name}").apply(self.kubernetes)
        until(lambda: self.pod.request("GET", "/v1/models", key=f"sk-{name}").status == 200, "the configuration")

    @property
    def seen(self) -> int:
        """Requests that reached any engine."""
        return sum(len(engine.seen) for engine in self.engines)


def first_config() -> Config:
    return (
        Config()
        .model("qwen", aliases=["gpt-4o"])
        .model("embed", task="Embedding")
        .model("Org/coder", deployment="coder", task="Completion")
        .model("asleep", stopped=True)
        .model("loading")
        .key("alice", "sk-alice")
        .key("bob", "sk-bob", models=["emb*", "gpt-4?"])
        .key("old", "sk-old", expiresAt=1_600_000_000)
    )


@pytest.fixture(scope="session")
def session_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    kubernetes = FakeKubernetes()
    engines = [FakeEngine("one"), FakeEngine("two")]
    # Unix sockets have short paths.
    folder = tmp_path_factory.mktemp("gw")
    pod = GatewayPod(folder, kubernetes)
    world = World(kubernetes, engines, pod)
    reset(world)
    try:
        pod.start()
        yield world
    finally:
        pod.stop()
        for server in (kubernetes, *engines):
            server.close()


def reset(world: World) -> None:
    kubernetes, engines = world.kubernetes, world.engines
    kubernetes.forbidden.clear()
    for service in ("qwen", "embed", "coder"):
        kubernetes.put_endpoints(NAMESPACE, service, [engines[0].port])
    first_config().apply(kubernetes)


@pytest.fixture
def world(session_world: World) -> Iterator[World]:
    yield session_world
    reset(session_world)
    session_world.apply(first_config())
    pod = session_world.pod
    until(lambda: serves_as_at_first(pod), "the first configuration is in force again")
    for engine in session_world.engines:
        engine.seen.clear()


def serves_as_at_first(pod: GatewayPod) -> bool:
    listed = pod.request("GET", "/v1/models")
    return (
        listed.status == 200
        and {model["id"] for model in listed.json["data"]} == {"qwen", "gpt-4o", "embed", "Org/coder", "asleep", "loading"}
        and pod.request("GET", "/v1/models", key="sk-bob").status == 200
        and all(pod.chat().body.count(b"from one") for _ in range(3))
    )  # fmt: skip


@pytest.fixture
def pod(world: World) -> GatewayPod:
    return world.pod


@pytest.fixture
def own_pod(tmp_path: Path) -> Iterator[World]:
    """A pod for one test that ends or starves its parts."""
    kubernetes, engine = FakeKubernetes(), FakeEngine("one")
    pod = GatewayPod(tmp_path, kubernetes)
    world = World(kubernetes, [engine], pod)
    try:
        yield world
    finally:
        pod.stop()
        kubernetes.close()
        engine.close()


@pytest.fixture
def run_together() -> Iterator[Callable[[list[Callable[[], Any]]], list[Any]]]:
    """Calls that run at the same time; their results in order."""
    with ThreadPoolExecutor(64) as pool:
        yield lambda calls: [future.result(timeout=60) for future in [pool.submit(call) for call in calls]]
