"""examples/quickstart/, as the README has it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
from e2e import objects
from e2e.client import Gateway, read_key
from e2e.kube import Kube, Object, until
from e2e.sources import Sources

ALL_FOUR = ("inferenceengine/llama-cpp", "modeldeployment/smollm2", "apigateway/gateway", "apikey/gateway-admin")
numbers = itertools.count(1)
FILES = ("InferenceEngine", "ModelDeployment", "ApiGateway")


@pytest.fixture
def namespace(kube: Kube, make_namespace: Callable[[str], str]) -> Iterator[str]:
    """One for each test, emptied at the end: the example has a node port, which only one Service at a time can have."""
    name = make_namespace(f"e2e-quickstart-{next(numbers)}")
    yield name
    kube.kubectl("delete", "stoker", "--all", "-n", name)
    until(lambda: kube.get("services", name, "gateway") is None, "the node port is free")


@pytest.mark.parametrize("order", [FILES, tuple(reversed(FILES))], ids=["engine-first", "gateway-first"])
def test_the_quickstart_converges_in_any_order(
    kube: Kube, namespace: str, quickstart_port: int, order: tuple[str, ...]
) -> None:
    documents = objects.quickstart()
    for kind in order:
        document = copy.deepcopy(documents[kind])
        document["metadata"]["namespace"] = namespace
        kube.apply(document)
    until(lambda: kube.get("apikeys", namespace, "gateway-admin"), "the admin's key")
    kube.wait_ready(*ALL_FOUR, namespace=namespace)

    lines = kube.kubectl("get", "stoker", "-n", namespace, "--no-headers").strip().splitlines()
    shown = {line.split()[0].split(".")[0] + "/" + line.split()[0].split("/")[1]: line.split() for line in lines}
    assert set(shown) == set(ALL_FOUR), lines
    for name, words in shown.items():
        assert words[2] == "True", (name, words)
        assert words[3].isalpha(), f"no reason: {words}"

    gateway = Gateway(quickstart_port, read_key(kube, namespace, "gateway-admin"), "smollm2")
    stream = gateway.stream(tokens=48)
    stream.await_end()
    assert len(stream.pieces) > 1, "the answer must come in pieces"


def test_children_may_come_before_what_they_refer_to(kube: Kube, namespace: str, quickstart_port: int) -> None:
    documents = objects.quickstart()
    mine: dict[str, Object] = {
        kind: {**document, "metadata": {**document["metadata"], "namespace": namespace}}
        for kind, document in documents.items()
    }
    kube.apply(objects.key(namespace, "alice", owner="alice@example.com", models=["smollm2"]))
    assert "gateway" in kube.wait_reason("apikeys", namespace, "alice", "GatewayNotFound")
    kube.apply(mine["ModelDeployment"])
    message = kube.wait_reason("modeldeployments", namespace, "smollm2", "EngineNotFound")
    assert "llama-cpp" in message
    kube.apply(mine["ApiGateway"])
    kube.apply(mine["InferenceEngine"])
    kube.wait_ready(*ALL_FOUR, "apikey/alice", namespace=namespace)
    answer = Gateway(quickstart_port, read_key(kube, namespace, "alice"), "smollm2").chat()
    assert answer.status == 200, answer


def test_the_download_tells_how_far_it_is(kube: Kube, make_namespace: Callable[[str], str], sources: Sources) -> None:
    namespace = make_namespace("e2e-download")
    kube.apply(objects.engine(namespace), objects.model(namespace, "slow", uri=sources.uri("slow")))
    messages: set[str] = set()

    def grown() -> bool:
        condition = kube.condition("modeldeployments", namespace, "slow", "Reconciling")
        if condition.get("reason") == "Downloading":
            messages.add(condition["message"])
        return len(messages) > 1

    until(grown, "two different messages about the download", every=0.5)
    kube.wait_current("modeldeployments", namespace, "slow")
    found = kube.get("modeldeployments", namespace, "slow")
    assert found
    assert "download" not in found["status"], "progress is shown only while there is some"
    kube.delete("modeldeployments", namespace, "slow")
