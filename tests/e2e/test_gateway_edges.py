"""What a gateway has to do with the world around it, on a whole cluster: HTTPS, other APIs, an identity provider, Redis, and a
NetworkPolicy that lets it reach those and nothing else."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from e2e import objects
from e2e.client import NodePort, Service, read_key
from e2e.kube import Kube, until
from e2e.script_server import apply_script_server
from gateway.certificates import make_certificate
from ports import free_port

ISSUER = "e2e-issuer"
HOST = f"issuer.{ISSUER}.svc"
MACHINE = "host.docker.internal"
LIMIT = 10


@dataclass
class Front:
    """A gateway of two pods with everything that can be set around it."""

    kube: Kube
    namespace: str
    port: int
    authority: str

    def chat(self, key: str, model: str = "smollm2", **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer; on a connection of its own, so that pods take turns."""
        context = ssl.create_default_context(cadata=self.authority)
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=60, context=context)
        body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}], **more}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def subject(self) -> str:
        """Whose certificate is shown to a new connection."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("localhost", self.port), 10) as plain, context.wrap_socket(plain) as spoken:
            shown = spoken.getpeercert(binary_form=True) or b""
        return next(name for name in ("first", "second", "") if name.encode() in shown)


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """On this machine, for there is no image of one."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    assert found, "no Redis: hack/servers installs it"
    port = free_port()
    command = [found, "--port", str(port), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def front(kube: Kube, service: Service, next_port: Callable[[], NodePort], redis_port: int) -> Front:
    namespace, port = service.namespace, next_port()
    issuers, issuers_key = make_certificate("issuer", host=HOST)
    ours, ours_key = make_certificate("first")
    apply_script_server(kube, ISSUER, "issuer", kube.stoker_image(), python="python", env={"CERTIFICATE": (issuers + issuers_key).decode()})  # fmt: skip
    kube.apply(
        secret(namespace, "front-tls", {"tls.crt": ours, "tls.key": ours_key}, "kubernetes.io/tls"),
        secret(namespace, "front-client", {"clientSecret": b"client secret"}),
        secret(namespace, "front-redis", {"url": f"redis://{MACHINE}:{redis_port}/0".encode()}),
        secret(namespace, "front-far", {"apiKey": service.gateway.key.encode()}),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "authorities"}, "data": {"ca.crt": issuers.decode()}},
        objects.model(namespace, "asleep", replicas=0),
        objects.key(namespace, "bounded", "front", limits={"requestsPerMinute": LIMIT}),
        objects.gateway(
            namespace,
            port.node_port,
            "front",
            replicas=2,
            expose={"type": "NodePort", "nodePort": port.node_port, "tls": {"secretName": "front-tls"}},
            auth={"introspection": {"url": f"https://{HOST}:8080/introspect", "clientId": "front", "clientSecretRef": {"name": "front-client"}, "claims": {"email": "email"}, "roleMap": [{"value": "staff", "role": "user"}]}},
            limits={"redisSecretRef": {"name": "front-redis"}},
            certificateAuthorities={"configMapRef": {"name": "authorities"}},
            usage={"enabled": False},
            egress=[],
            routes=[
                {"name": "shared", "models": [{"model": "asleep", "weight": 5}, {"model": "smollm2"}]},
                {"name": "far", "models": [{"model": "asleep"}], "fallbacks": [{"external": {"url": f"http://gateway.{namespace}.svc/v1", "model": "gpt-4o-mini", "secretRef": {"name": "front-far"}}}]},
            ],
        ),
    )  # fmt: skip
    kube.kubectl("rollout", "status", "deployment/issuer", "-n", ISSUER, "--timeout=180s")
    kube.wait_ready("apikey/bounded", "apikey/front-admin", namespace=namespace)
    kube.wait_current("apigateways", namespace, "front")
    return Front(kube, namespace, port.host_port, ours.decode())


def secret(namespace: str, name: str, content: dict[str, bytes], kind: str = "Opaque") -> dict[str, Any]:
    data = {field: base64.b64encode(value).decode() for field, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "type": kind, "data": data}  # fmt: skip


def test_a_certificate_in_its_secret_is_served_and_its_successor_at_once(kube: Kube, front: Front) -> None:
    key = read_key(kube, front.namespace, "front-admin")
    _, answer = until(lambda: (got := front.chat(key))[0] == 200 and got, "an answer over HTTPS")
    assert answer["usage"]["completion_tokens"] == 2
    assert front.subject() == "first"
    chain, private = make_certificate("second")
    kube.apply(secret(front.namespace, "front-tls", {"tls.crt": chain, "tls.key": private}, "kubernetes.io/tls"))
    # Each of the two pods has its own watch.
    until(lambda: {front.subject() for _ in range(8)} == {"second"}, "both pods show the new one")
    front.authority = chain.decode()
    assert front.chat(key)[0] == 200


def test_routes_leave_out_what_is_stopped_and_fall_back_to_another_api(
    kube: Kube, front: Front, service: Service
) -> None:
    key = read_key(kube, front.namespace, "front-admin")
    assert {front.chat(key, "shared")[0] for _ in range(4)} == {200}
    status, answer = front.chat(key, "far")
    assert (status, answer["usage"]["completion_tokens"]) == (200, 2)
    assert service.gateway.chat("far").status == 404, "the other gateway knows no such name: its own was put in"


def test_an_identity_provider_under_an_authority_of_ones_own_is_asked_about_tokens(front: Front) -> None:
    assert front.chat("opaque-alice")[0] == 200
    status, answer = front.chat("opaque-mallory")
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


def test_two_pods_count_together_in_redis(kube: Kube, front: Front) -> None:
    key = read_key(kube, front.namespace, "bounded")
    if not resolves(kube, front.namespace, MACHINE):
        pytest.skip(f"pods do not know this machine as {MACHINE}")
    until(lambda: (kube.get("apigateways", front.namespace, "front") or {})["status"]["limitsCounted"] == "Together", "they say so")  # fmt: skip
    answers = Counter(front.chat(key, max_tokens=1)[0] for _ in range(2 * LIMIT))
    assert answers == {200: LIMIT, 429: LIMIT}


def test_where_egress_is_restricted_its_pods_reach_nothing_else(kube: Kube, front: Front) -> None:
    """All that they need went through in the tests before this one."""
    assert resolves(kube, front.namespace, "models.stoker-demo.svc"), "names are found"
    connect = "import socket; socket.create_connection(('models.stoker-demo.svc', 8080), 3)"
    with pytest.raises(AssertionError, match=r"timed out|TimeoutError"):
        in_a_pod(kube, front.namespace, connect)


def resolves(kube: Kube, namespace: str, name: str) -> bool:
    try:
        in_a_pod(kube, namespace, f"import socket; socket.getaddrinfo({name!r}, None)")
    except AssertionError:
        return False
    return True


def in_a_pod(kube: Kube, namespace: str, program: str) -> None:
    (pod, *_) = kube.pods(namespace, "stoker.dev/api-gateway=front,app.kubernetes.io/component=gateway")
    kube.kubectl("exec", pod["metadata"]["name"], "-n", namespace, "-c", "policy", "--", "python", "-c", program)
