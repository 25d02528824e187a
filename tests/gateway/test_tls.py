"""HTTPS with a certificate from a Secret: real Envoy and relay, a fake API server that keeps the Secret, a fake engine."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from gateway.certificates import make_certificate
from gateway.conftest import World, first_config
from gateway.fake_engine import FakeEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod, exchange, seconds_until, until
from gateway.wire import ENDLESS

SECRET = "gateway-tls"


def with_tls(secret: str | None = SECRET) -> Config:
    config = first_config()
    config.more = {"tls": secret}
    return config


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    kubernetes, engine = FakeKubernetes(), FakeEngine("one")
    pod = GatewayPod(tmp_path_factory.mktemp("tls"), kubernetes)
    kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port])
    with_tls().apply(kubernetes)
    put(kubernetes, *make_certificate("first"))
    try:
        pod.start()
        yield World(kubernetes, [engine], pod)
    finally:
        pod.stop()
        kubernetes.close()
        engine.close()


def put(kubernetes: FakeKubernetes, chain: bytes, key: bytes, secret: str = SECRET) -> None:
    kubernetes.put_files(NAMESPACE, secret, {"tls.crt": chain, "tls.key": key})


def connect(world: World, protocols: list[str] | None = None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:  # fmt: skip
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    if protocols:
        context.set_alpn_protocols(protocols)
    plain = socket.create_connection(("127.0.0.1", world.pod.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost")


def name_shown(world: World) -> str:
    """The subject of the certificate that a new connection gets."""
    with connect(world) as connection:
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).subject.rfc4514_string().removeprefix("CN=")


def ask(connection: ssl.SSLSocket, stream: bool = False, pieces: int = 5, gap: float = 0.0) -> http.client.HTTPResponse:
    body = json.dumps({"model": "qwen", "stream": stream, "messages": [], "metadata": {"n": pieces, "gap": gap}})
    connection.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-alice\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    )
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def test_calls_are_answered_over_tls_and_only_so(served: World) -> None:
    with connect(served) as connection:
        assert ask(connection).status == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        served.pod.request("GET", "/v1/models")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_http2_is_offered_and_old_tls_is_refused(served: World) -> None:
    with connect(served, ["h2", "http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"
    with pytest.raises((ssl.SSLError, OSError)):
        connect(served, newest=ssl.TLSVersion.TLSv1_1)


def test_a_new_certificate_is_served_within_a_second_and_open_streams_go_on(served: World) -> None:
    connections = [connect(served) for _ in range(20)]
    streams = [ask(connection, stream=True, pieces=ENDLESS, gap=0.05) for connection in connections]
    took = []
    for name in ("second", "third", "fourth"):
        put(served.kubernetes, *make_certificate(name))
        took.append(seconds_until(lambda name=name: name_shown(served) == name, "the new certificate"))  # type: ignore[misc]
    assert min(took) < 1.0, took
    served.engines[0].ended += 1
    for stream in streams:
        assert stream.read().endswith(b"data: [DONE]\n\n")
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("what", ["another key", "no key", "nonsense", "gone"])
def test_a_bad_certificate_leaves_the_old_one_in_force(served: World, what: str) -> None:
    put(served.kubernetes, *make_certificate("good"))
    until(lambda: name_shown(served) == "good", "the good certificate")
    chain, key = make_certificate("bad")
    if what == "another key":
        put(served.kubernetes, chain, make_certificate()[1])
    elif what == "no key":
        put(served.kubernetes, chain, b"")
    elif what == "nonsense":
        put(served.kubernetes, b"-----BEGIN CERTIFICATE-----\nxxxx\n", key)
    else:
        served.kubernetes.delete_secret(NAMESPACE, SECRET)
    # Something else changes as well: when that is in force, the certificate would be.
    with_tls().key("marker", f"sk-{what}").apply(served.kubernetes)
    until(lambda: open_for(served, f"sk-{what}"), "the marker")
    assert name_shown(served) == "good"


def open_for(served: World, key: str) -> bool:
    with connect(served) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        return connection.recv(100).startswith(b"HTTP/1.1 200")


def test_the_private_key_lies_in_a_file_of_the_gateways_user_only(served: World) -> None:
    path: Path = served.pod.run / "xds" / "sds.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_secret_is_waited_for_in_the_old_ones_place(served: World) -> None:
    put(served.kubernetes, *make_certificate("here"))
    with_tls("later").key("marker", "sk-later").apply(served.kubernetes)
    until(lambda: open_for(served, "sk-later"), "the marker")
    assert name_shown(served) in ("here", "good")
    put(served.kubernetes, *make_certificate("there"), secret="later")
    until(lambda: name_shown(served) == "there", "the other Secret's certificate")
    with_tls().apply(served.kubernetes)
    until(lambda: name_shown(served) == "here", "the first Secret's certificate")


def test_a_new_pod_without_its_certificate_does_not_begin_and_never_without_tls(own_pod: World) -> None:
    own_pod.kubernetes.put_endpoints(NAMESPACE, "qwen", [own_pod.engines[0].port])
    with_tls().apply(own_pod.kubernetes)
    own_pod.pod.start_policy_container()
    until(lambda: "lds.json" in own_pod.pod.probe("/startup").body.decode(), "what it waits for")
    assert own_pod.pod.probe("/startup").status == 503
    put(own_pod.kubernetes, *make_certificate("late"))
    until(lambda: own_pod.pod.probe("/startup").status == 200, "the certificate")


def test_the_web_chat_calls_on_a_port_of_its_own_which_is_there_only_where_it_is_told(served: World) -> None:
    port = served.pod.inside_port

    def inside() -> int:
        try:
            body = {"model": "qwen", "messages": []}
            return exchange(port, "POST", "/v1/chat/completions", json.dumps(body).encode(), {"authorization": "Bearer sk-alice", "content-type": "application/json"}, 30).status  # fmt: skip
        except OSError:
            return 0

    assert inside() == 0
    config = with_tls()
    config.more |= {"inside": True}
    with connect(served) as kept:
        assert ask(kept).status == 200
        config.apply(served.kubernetes)
        until(lambda: inside() == 200, "the port without TLS")
        assert exchange(port, "GET", "/v1/models", None, {}, 30).status == 401, "with a key only"
        assert ask(kept).status == 200, "what was open goes on"
        with connect(served) as another:
            assert ask(another).status == 200
    with_tls().apply(served.kubernetes)
    until(lambda: inside() == 0, "the port is gone")
