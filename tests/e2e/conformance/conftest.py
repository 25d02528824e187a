"""Real clients. Their environments are made when the first test needs them, and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conformance.checks.world import World
from e2e.conformance.clients import node_modules, python_with_clients
from e2e.conformance.strict_engine import KNOWN, StrictEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod

AUDIO = "/v1/audio/transcriptions"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.conformance)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def clients_python() -> Path:
    return python_with_clients()


@pytest.fixture(scope="session")
def programs() -> Path:
    """node_modules with opencode and Continue."""
    return node_modules()


@pytest.fixture(scope="session")
def strict_engine() -> Iterator[StrictEngine]:
    engine = StrictEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def strict_pod(tmp_path_factory: pytest.TempPathFactory, strict_engine: StrictEngine) -> Iterator[GatewayPod]:
    """A gateway on loopback in front of the strict mock; the API server is a fake."""
    kubernetes = FakeKubernetes()
    config = Config().key("alice", "sk-alice").model("chat", paths=sorted(KNOWN))
    config.model("embed", task="Embedding", paths=["/v1/embeddings"]).model(
        "listen", task="Transcription", paths=[AUDIO]
    )
    config.apply(kubernetes)
    for service in ("chat", "embed", "listen"):
        kubernetes.put_endpoints(NAMESPACE, service, [strict_engine.port])
    pod = GatewayPod(tmp_path_factory.mktemp("strict"), kubernetes)
    try:
        pod.start()
        yield pod
    finally:
        pod.stop()
        kubernetes.close()


@pytest.fixture
def strict_world(strict_pod: GatewayPod, strict_engine: StrictEngine) -> Iterator[World]:
    """Whatever reaches the mock must be what OpenAI or Anthropic document."""
    strict_engine.complaints.clear()
    strict_engine.served.clear()
    yield World(f"http://127.0.0.1:{strict_pod.port}", "sk-alice", "chat", True, "embed", "listen")
    assert strict_engine.complaints == []
