"""What the gateway refuses, in front of the real engine, which must not notice anything of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from e2e import objects
from e2e.client import Answer, Gateway, Service, read_key
from e2e.kube import PATIENCE, Kube, until

CHAT = {"model": "smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
ENGINE_PODS = "stoker.dev/model-deployment=smollm2"
GATEWAY_PODS = "stoker.dev/api-gateway=gateway,app.kubernetes.io/component=gateway"


def engine_counters(kube: Kube, service: Service) -> dict[str, str]:
    """What the engine has computed so far, in its own words."""
    (pod,) = kube.pods(service.namespace, ENGINE_PODS)
    text = kube.proxied(service.namespace, f"pods/{pod['metadata']['name']}:8080", "metrics")
    wanted = r"^(llamacpp:(?:prompt_tokens_total|tokens_predicted_total|n_decode_total|requests_\w+)) (\S+)$"
    counters = dict(re.findall(wanted, text, re.MULTILINE))
    assert len(counters) >= 4, text
    return counters


@pytest.fixture
def untouched_engine(kube: Kube, service: Service) -> Iterator[None]:
    """The engine's counters are after the test what they were before."""
    before = engine_counters(kube, service)
    yield
    assert engine_counters(kube, service) == before


@pytest.fixture
def gateway(service: Service) -> Gateway:
    return service.gateway


def check(answer: Answer, status: int, code: str | None) -> dict[str, Any]:
    assert answer.status == status, (answer.status, answer.body[:500])
    error = answer.error
    assert error["code"] == code, error
    return error


def test_the_counters_that_prove_silence_do_move(kube: Kube, service: Service) -> None:
    before = engine_counters(kube, service)
    assert service.gateway.chat().status == 200
    assert until(lambda: engine_counters(kube, service) != before, "counters that moved")


@pytest.mark.usefixtures("untouched_engine")
class TestWithoutTroublingTheEngine:
    @pytest.mark.parametrize(
        "authorization",
        ["", "Bearer ", "Bearer sk-stoker-wrong", "Basic dXNlcjpwYXNz", "Bearer " + "x" * 4000],
        ids=["none", "empty", "wrong", "basic", "long"],
    )
    def test_a_call_without_a_valid_key_is_refused(self, gateway: Gateway, authorization: str) -> None:
        answer = gateway.request("POST", "/v1/chat/completions", CHAT, {"Authorization": authorization})
        check(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")

    def test_the_models_list_needs_a_key(self, gateway: Gateway) -> None:
        check(gateway.request("GET", "/v1/models", headers={"Authorization": ""}), 401, "invalid_api_key")

    def test_a_deleted_key_stops_within_5_seconds(self, kube: Kube, service: Service) -> None:
        kube.apply(objects.key(service.namespace, "leaver"))
        kube.wait_ready("apikey/leaver", namespace=service.namespace)
        leaver = Gateway(service.gateway.port, read_key(kube, service.namespace, "leaver"))
        # Two gateway pods: each must have let it in before it can be said to be out everywhere.
        until(lambda: all(leaver.request("GET", "/v1/models").status == 200 for _ in range(8)), "the new key")
        kube.delete("apikeys", service.namespace, "leaver")
        until(lambda: all(leaver.request("GET", "/v1/models").status == 401 for _ in range(8)), "the refusal", within=5)

    def test_a_suspended_key_stops_within_5_seconds_and_comes_back(self, kube: Kube, service: Service) -> None:
        kube.apply(objects.key(service.namespace, "paused"))
        kube.wait_ready("apikey/paused", namespace=service.namespace)
        paused = Gateway(service.gateway.port, read_key(kube, service.namespace, "paused"))
        for suspend, status in ((False, 200), (True, 401), (False, 200)):
            kube.patch("apikeys", service.namespace, "paused", {"spec": {"suspend": suspend}})
            until(
                lambda status=status: all(paused.request("GET", "/v1/models").status == status for _ in range(8)),  # type: ignore[misc]
                f"{status} with suspend: {suspend}",
                within=5 if suspend else PATIENCE,
            )
        kube.delete("apikeys", service.namespace, "paused")

    def test_an_unknown_model_is_not_found(self, gateway: Gateway) -> None:
        assert "gpt-9" in check(gateway.chat(model="gpt-9"), 404, "model_not_found")["message"]

    def test_a_model_outside_the_keys_list_is_neither_found_nor_listed(self, kube: Kube, service: Service) -> None:
        kube.apply(objects.key(service.namespace, "narrow", models=["qwen*"]))
        kube.wait_ready("apikey/narrow", namespace=service.namespace)
        narrow = Gateway(service.gateway.port, read_key(kube, service.namespace, "narrow"), "smollm2")
        until(lambda: all(narrow.request("GET", "/v1/models").status == 200 for _ in range(8)), "the key")
        assert json.loads(narrow.request("GET", "/v1/models").body)["data"] == []
        check(narrow.chat(), 404, "model_not_found")
        kube.delete("apikeys", service.namespace, "narrow")

    def test_a_body_of_40_megabytes_is_too_large(self, gateway: Gateway) -> None:
        body = json.dumps({**CHAT, "user": "x" * 40_000_000}).encode()
        answer = gateway.request("POST", "/v1/chat/completions", body)
        check(answer, 413, "request_too_large")

    @pytest.mark.parametrize(
        "body",
        [b'{"model": "smollm2", "messages": [', b"", b"\xff\xfe{\x00}\x00", b"[]", b'{"messages": []}', b'{"model": ["smollm2"]}'],
        ids=["cut off", "empty", "utf-16", "a list", "no model", "model as a list"],
    )  # fmt: skip
    def test_a_body_that_cannot_be_read_is_a_bad_request(self, gateway: Gateway, body: bytes) -> None:
        answer = gateway.request("POST", "/v1/chat/completions", body)
        assert answer.status == 400, answer
        assert answer.error["type"] == "invalid_request_error"

    def test_a_header_of_ours_from_a_client_has_no_effect(self, gateway: Gateway) -> None:
        headers = {"x-gw-cluster": "e2e-service/smollm2", "x-gw-endpoint": "127.0.0.1:8080", "x-gw-anything": "1"}
        check(gateway.request("GET", "/slots", headers=headers), 404, "unknown_url")
        check(gateway.request("POST", "/v1/chat/completions", CHAT, {**headers, "Authorization": ""}), 401, "invalid_api_key")  # fmt: skip
        check(
            gateway.request("POST", "/v1/chat/completions", {**CHAT, "model": "gpt-9"}, headers), 404, "model_not_found"
        )

    @pytest.mark.parametrize(
        "path",
        [
            "/slots",
            "/slots/0?action=erase",
            "/metrics",
            "/health",
            "/props",
            "/completion",
            "/v1/../slots",
            "/v1/./../slots",
            "/v1/chat/completions/../../../slots",
            "/v1/%2e%2e/slots",
            "/v1/..%2fslots",
            "/v1%2f..%2fslots",
            "//slots",
            "/v1//chat/completions",
            "/v1/chat/completions/",
            "/v1/chat/completions%00",
            "/V1/chat/completions",
            "/v1/chat/completions;x=/slots",
            "/v1\\..\\slots",
            "/%73lots",
            "http://127.0.0.1:8080/slots",
            "/lora-adapters",
            "/reranking",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_any_other_path_is_refused(self, gateway: Gateway, method: str, path: str) -> None:
        answer = gateway.request(method, path, CHAT if method == "POST" else None)
        check(answer, 404, "unknown_url")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    def test_any_other_method_is_refused(self, gateway: Gateway, method: str) -> None:
        check(gateway.request(method, "/v1/chat/completions"), 405, "method_not_allowed")

    def test_an_endpoint_the_model_is_not_for_is_refused(self, gateway: Gateway) -> None:
        answer = gateway.request("POST", "/v1/embeddings", {"model": "smollm2", "input": "Hi"})
        assert "smollm2" in check(answer, 404, "unsupported_endpoint")["message"]


def test_the_clients_key_does_not_reach_the_engine(service: Service, kube: Kube) -> None:
    assert service.gateway.chat().status == 200
    (pod,) = kube.pods(service.namespace, ENGINE_PODS)
    logs = kube.kubectl("logs", "-n", service.namespace, pod["metadata"]["name"], "--all-containers")
    assert service.gateway.key not in logs
    for gateway_pod in kube.pods(service.namespace, GATEWAY_PODS):
        logs = kube.kubectl("logs", "-n", service.namespace, gateway_pod["metadata"]["name"], "--all-containers")
        assert service.gateway.key not in logs, "no log may hold a key"


def test_gateways_hold_hashes_only(kube: Kube, service: Service) -> None:
    own = service.gateway.key.encode()
    for secret in kube.list("secrets", service.namespace):
        if secret["metadata"]["name"].startswith("gateway-") and secret["metadata"]["name"] != "gateway-admin":
            assert own not in json.dumps(secret).encode()


def test_the_engine_cannot_be_reached_past_the_gateway(kube: Kube, service: Service) -> None:
    """NetworkPolicy: a pod beside the engine has no business with it, though it reaches other pods."""
    (engine,) = kube.pods(service.namespace, ENGINE_PODS)
    (other,) = kube.pods("stoker-demo", "app=models")
    attempts = f"""
import socket
socket.create_connection(("{other["status"]["podIP"]}", 8080), 20)
print("others: reached")
socket.create_connection(("{engine["status"]["podIP"]}", 8080), 3)
"""
    phase, said = kube.run_python(service.namespace, "stranger", attempts)
    assert phase == "Failed"
    assert "others: reached" in said
    assert "TimeoutError" in said
    kube.delete("pods", service.namespace, "stranger")
