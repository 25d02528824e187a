"""What else can go wrong with a model (beside test_faults.py): a reason of its own, a message with the next step, and it mends by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from e2e import objects
from e2e.client import Gateway, NodePort, read_key
from e2e.kube import Kube, until
from e2e.objects import MODEL_FILE
from e2e.sources import Sources


@pytest.fixture(scope="module")
def namespace(kube: Kube, make_namespace: Callable[[str], str], sources: Sources) -> str:
    """All the broken models at once: they fail side by side while each test looks at its own."""
    name = make_namespace("e2e-failures")
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "taken", "namespace": name, "labels": {"app": "somebody-elses"}},
            "spec": {"ports": [{"port": 80}]},
        },
        objects.engine(name),
        objects.model(name, "missing", uri=sources.uri("missing")),
        objects.model(name, "unreachable", uri=sources.uri("good", service="absent")),
        objects.model(name, "text", uri=sources.uri("text")),
        objects.model(name, "no-engine", engineRef={"name": "not-there-yet"}),
        objects.model(name, "no-secret", source={"secretRef": {"name": "not-there-yet"}}),
        objects.model(name, "taken"),
    )
    return name


@dataclass
class LostKey:
    """A key whose Secret somebody deleted, and the gateway it opens."""

    namespace: str
    gateway: Gateway


@pytest.fixture(scope="module", autouse=True)
def lost_key(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> LostKey:
    """Made first and looked at last: that a Secret is gone is noticed within a minute."""
    namespace, port = make_namespace("e2e-keys"), next_port()
    kube.apply(objects.gateway(namespace, port.node_port), objects.key(namespace, "alice"))
    kube.wait_ready("apigateway/gateway", "apikey/alice", namespace=namespace)
    lost = Gateway(port.host_port, read_key(kube, namespace, "alice"))
    until(lambda: lost.request("GET", "/v1/models").status == 200, "the key works")
    kube.delete("secrets", namespace, "alice")
    return LostKey(namespace, lost)


def serves_again(kube: Kube, namespace: str, name: str) -> None:
    """Ready without anybody's help, then removed: the machine is small."""
    kube.wait_current("modeldeployments", namespace, name)
    kube.delete("modeldeployments", namespace, name)


def test_a_source_that_is_not_there_is_found_when_it_comes(kube: Kube, namespace: str, sources: Sources) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "missing", "SourceNotFound")
    assert sources.uri("missing") in message
    assert "404" in message
    (pod,) = kube.pods(namespace, "stoker.dev/model-deployment=missing")
    sources.mend("missing")
    kube.wait_current("modeldeployments", namespace, "missing")
    (same,) = kube.pods(namespace, "stoker.dev/model-deployment=missing")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"], "the pod that waited is the one that serves"
    serves_again(kube, namespace, "missing")


def test_a_source_that_cannot_be_reached_is_tried_until_it_can(kube: Kube, namespace: str, sources: Sources) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "unreachable", "SourceUnreachable")
    assert "absent.e2e-source" in message
    sources.mend_absent()
    serves_again(kube, namespace, "unreachable")


def test_a_download_that_is_cut_goes_on_where_it_was(kube: Kube, namespace: str, sources: Sources) -> None:
    kube.apply(
        objects.model(namespace, "cut", uri=sources.uri("cut"), source={"sha256": {MODEL_FILE: sources.sha256()}})
    )
    kube.wait_current("modeldeployments", namespace, "cut")
    asked = [request["range"] for request in sources.requests("cut")]
    assert asked[0].startswith("bytes=0-"), "the header is read first"
    ranges = [found for found in asked if not found.startswith("bytes=0-")]
    assert ranges[0] == ""
    assert any(found.startswith("bytes=") and int(found[6:].rstrip("-")) > 1_000_000 for found in ranges[1:]), ranges
    serves_again(kube, namespace, "cut")


def test_a_file_that_is_no_model_is_refused(kube: Kube, namespace: str, sources: Sources) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "text", "NotGGUF")
    assert "web page" in message
    sources.mend("text")
    serves_again(kube, namespace, "text")


def test_an_engine_that_does_not_exist_is_named_and_awaited(kube: Kube, namespace: str) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "no-engine", "EngineNotFound")
    assert "not-there-yet" in message
    kube.apply(objects.engine(namespace, "not-there-yet"))
    serves_again(kube, namespace, "no-engine")


def test_a_token_secret_that_does_not_exist_is_named_and_awaited(kube: Kube, namespace: str) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "no-secret", "SecretNotFound")
    assert "not-there-yet" in message
    kube.kubectl("create", "secret", "generic", "not-there-yet", "-n", namespace, "--from-literal=token=x")
    serves_again(kube, namespace, "no-secret")


def test_a_foreign_service_of_the_same_name_is_left_alone(kube: Kube, namespace: str) -> None:
    message = kube.wait_reason("modeldeployments", namespace, "taken", "NameTaken")
    assert "taken" in message
    foreign = kube.get("services", namespace, "taken")
    assert foreign
    assert foreign["metadata"]["labels"] == {"app": "somebody-elses"}
    assert not foreign["metadata"].get("ownerReferences")
    kube.delete("services", namespace, "taken")
    serves_again(kube, namespace, "taken")


def test_a_spec_the_operator_cannot_use_stalls_only_itself(kube: Kube, namespace: str) -> None:
    kube.apply(objects.model(namespace, "bad-args", args=["--port", "1234"], replicas=0))
    message = kube.wait_reason("modeldeployments", namespace, "bad-args", "ManagedArgument")
    assert "--port" in message
    kube.patch("modeldeployments", namespace, "bad-args", {"spec": {"args": []}})
    kube.wait_current("modeldeployments", namespace, "bad-args")


def test_a_key_whose_secret_was_deleted_goes_on_working_until_it_is_rotated(kube: Kube, lost_key: LostKey) -> None:
    namespace, lost = lost_key.namespace, lost_key.gateway
    stalled = until(
        lambda: (found := kube.condition("apikeys", namespace, "alice", "Stalled")).get("reason") and found,
        "the missing Secret is noticed",
        within=75,
        every=1,
    )
    assert stalled["reason"] == "KeySecretMissing"
    assert "stoker.dev/rotate" in stalled["message"]
    assert kube.get("secrets", namespace, "alice") is None, "a key is never made anew behind its owner's back"
    assert lost.request("GET", "/v1/models").status == 200
    kube.kubectl("annotate", "apikey", "alice", "-n", namespace, "stoker.dev/rotate=1")
    kube.wait_current("apikeys", namespace, "alice")
    renewed = Gateway(lost.port, read_key(kube, namespace, "alice"))
    assert renewed.key != lost.key
    until(lambda: renewed.request("GET", "/v1/models").status == 200, "the new key works")
    assert lost.request("GET", "/v1/models").status == 200, "the old one goes on for its grace period"
