"""HTTP/1.1 that front and back could read differently, and headers that belong to the inside."""

from __future__ import annotations

import contextlib
import socket

from gateway.pod import Answer
from gateway.ways.registry import CHAT_PATH, EMBED_PATH, GUEST, Fortress, at_once, dumps, refused, way
from gateway.wire import talk

GUESTS = f"Authorization: Bearer {GUEST}\r\n".encode()
EMBED = dumps({"model": "embed", "input": "x"})
INNER = b"POST " + CHAT_PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n" + b'{"model": "qwen"}'
"""What is to be smuggled behind a call of the guest's: it has no key."""


def post(fortress: Fortress, *lines: bytes, body: bytes = b"", path: str = EMBED_PATH) -> Answer:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + GUESTS
    return talk(fortress.port, head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


def drain(fortress: Fortress, request: bytes, seconds: float = 2.0) -> bytes:
    """Everything that comes back until the other side hangs up or falls silent."""
    received = b""
    with socket.create_connection(("127.0.0.1", fortress.port), timeout=seconds) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
            while data := connection.recv(65536):
                received += data
    return received


@way("Content-Length and Transfer-Encoding")
def cl_te(fortress: Fortress) -> None:
    for lines in ((b"Content-Length: 6", b"Transfer-Encoding: chunked"), (b"Transfer-Encoding: chunked", b"Content-Length: 6")):  # fmt: skip
        refused(post(fortress, *lines, body=b"0\r\n\r\n" + INNER), 400)


@way("two Content-Lengths")
def two_lengths(fortress: Fortress) -> None:
    for lines in ((b"Content-Length: 5", b"Content-Length: 6"), (b"Content-Length: 5, 6",), (b"Content-Length: 5", b"Content-Length: 5000")):  # fmt: skip
        refused(post(fortress, *lines, body=b"12345" + INNER), 400)


@way("a Content-Length that is no number")
def odd_length(fortress: Fortress) -> None:
    for length in (b"+17", b"-1", b"0x11", b"17 ,", b"1_7", b"", b"99999999999999999999"):
        refused(post(fortress, b"Content-Length: " + length, body=EMBED), 400, 411, 413)


@way("Transfer-Encoding in disguise")
def odd_coding(fortress: Fortress) -> None:
    for coding in (b"xchunked", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"\x0bchunked", b'"chunked"', b"chunked;x"):  # fmt: skip
        answer = post(fortress, b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n" + INNER)
        refused(answer, 400, 501)


@way("Transfer-Encoding twice")
def coding_twice(fortress: Fortress) -> None:
    answer = post(fortress, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + INNER)
    refused(answer, 400, 501)


@way("chunks with odd sizes")
def odd_chunks(fortress: Fortress) -> None:
    for chunk in (b"-1\r\n", b"0x5\r\n", b"5 5\r\n12345\r\n", b"fffffffffffffffff\r\n", b"g\r\n"):
        refused(post(fortress, b"Transfer-Encoding: chunked", body=chunk + b"0\r\n\r\n"), 400, 413)


@way("a second request behind the first", lets_through=1)
def behind_the_first(fortress: Fortress) -> None:
    """Pipelined without a key: the first is the guest's own call, the second is nobody's."""
    head = f"POST {EMBED_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(EMBED)}\r\n".encode() + GUESTS + b"\r\n"
    received = drain(fortress, head + EMBED + INNER)
    assert received.count(b"HTTP/1.1 200") == 1
    assert received.count(b"HTTP/1.1 401") == 1


@way("a request in the trailers")
def in_the_trailers(fortress: Fortress) -> None:
    body = b"5\r\n12345\r\n0\r\nx-gw-cluster: team-a/qwen\r\nAuthorization: Bearer sk-alice\r\n\r\n"
    refused(post(fortress, b"Transfer-Encoding: chunked", b"Trailer: x-gw-cluster", body=body), 400)


@way("line ends that are none")
def odd_line_ends(fortress: Fortress) -> None:
    for request in (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX: y\rx-gw-cluster: team-a/qwen\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX: y\x00z\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-wrong\r\n Bearer sk-alice\r\n\r\n",
    ):
        refused(talk(fortress.port, request), 400, 401)


@way("space before the colon, or no name")
def odd_names(fortress: Fortress) -> None:
    for line in (b"Authorization : Bearer sk-alice", b": Bearer sk-alice", b"Author ization: Bearer sk-alice", b"\xc3\xa4: y"):  # fmt: skip
        refused(talk(fortress.port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"), 400, 401)


@way("headers that are too long")
def long_headers(fortress: Fortress) -> None:
    for line in (b"X: " + b"y" * 70_000, b"Y" * 70_000 + b": x", b"Cookie: " + b"a=b; " * 20_000):
        refused(talk(fortress.port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"), 431)


@way("headers that are too many")
def many_headers(fortress: Fortress) -> None:
    lines = b"".join(b"X%d: y\r\n" % number for number in range(1000))
    refused(talk(fortress.port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"), 431)


@way("a target that is too long")
def long_target(fortress: Fortress) -> None:
    answer = talk(fortress.port, b"GET /v1/models?" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    refused(answer, 400, 414, 431)


@way("other versions of HTTP")
def other_versions(fortress: Fortress) -> None:
    for line in (b"GET /v1/models HTTP/1.0", b"GET /v1/models HTTP/3.0", b"GET /v1/models HTTP/1.11", b"GET /v1/models ICY/1.1"):  # fmt: skip
        refused(talk(fortress.port, line + b"\r\nHost: x\r\n" + GUESTS + b"\r\n"), 400, 426)
    assert b'"id"' not in drain(fortress, b"GET /v1/models\r\n\r\n")


@way("CONNECT")
def connect(fortress: Fortress) -> None:
    for target in (b"127.0.0.1:9090", b"kubernetes.default.svc:443", b"x:1"):
        refused(
            talk(fortress.port, b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n" + GUESTS + b"\r\n"), 400, 404, 405
        )


@way("TRACE and made-up methods")
def odd_methods(fortress: Fortress) -> None:
    for method in ("TRACE", "TRACK", "DEBUG", "post", "PROPFIND", "PURGE"):
        for target in (CHAT_PATH, "/slots", "*"):
            refused(fortress.ask(GUEST, target=target, method=method), 400, 404, 405)


@way("another method by a header")
def method_override(fortress: Fortress) -> None:
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        refused(fortress.ask(GUEST, {name: "POST"}, target=CHAT_PATH, method="GET", body=b""), 405)


@way("another path by a header")
def path_override(fortress: Fortress) -> None:
    for name in ("x-original-url", "x-rewrite-url", "x-forwarded-path", "x-forwarded-prefix", "x-envoy-original-path"):
        refused(fortress.ask(GUEST, {name: CHAT_PATH}, target="/slots"), 404)
        refused(fortress.ask(GUEST, {name: "/slots"}), 404)


@way("an address of the inside as client")
def client_address(fortress: Fortress) -> None:
    for name in ("x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "x-envoy-external-address", "x-envoy-internal"):  # fmt: skip
        refused(fortress.ask(headers={name: "127.0.0.1"}), 401)


@way("another host")
def other_host(fortress: Fortress) -> None:
    for host in (b"127.0.0.1:9090", b"policy", b"answer", b"localhost", b"kubernetes.default.svc"):
        for line in (b"GET /drain HTTP/1.1", b"GET http://" + host + b"/metrics HTTP/1.1"):
            answer = talk(fortress.port, line + b"\r\nHost: " + host + b"\r\n" + GUESTS + b"\r\n")
            refused(answer, 400, 404)


@way("an upgrade to a websocket or to HTTP/2")
def upgrade(fortress: Fortress) -> None:
    def try_one(lines: bytes) -> None:
        request = b"POST " + CHAT_PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + lines + b"\r\n"
        assert not drain(fortress, request + INNER).startswith(b"HTTP/1.1 101")

    settings = b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    protocols = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + settings,
        b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    )
    at_once(try_one, protocols)


@way("a header that the connection shall lose")
def hop_by_hop(fortress: Fortress) -> None:
    """Connection names headers that are dropped on the way: not ours, and not the key's."""
    for name in ("authorization", "x-gw-cluster", "x-gw-key", "content-length"):
        refused(fortress.ask(GUEST, {"connection": f"close, {name}"}), 400, 401, 404)


@way("our own headers")
def own_headers(fortress: Fortress) -> None:
    for name in ("x-gw-cluster", "X-GW-Cluster", "x-gw-endpoint", "x-gw-answer", "x-gw-key", "x-gw-stage", "x-gw-usage", "x-gw-requested", "x_gw_cluster"):  # fmt: skip
        for value in ("team-a/qwen", "answer", "early", "metrics", "alice"):
            refused(fortress.ask(headers={name: value}), 401)
            refused(fortress.ask(GUEST, {name: value}), 404)


@way("Envoy's own headers")
def envoys_headers(fortress: Fortress) -> None:
    for name in ("x-envoy-upstream-alt-stat-name", "x-envoy-retry-on", "x-envoy-decorator-operation", "x-envoy-original-host", "x-envoy-upstream-rq-timeout-ms"):  # fmt: skip
        refused(fortress.ask(GUEST, {name: "5"}), 404)


@way("a user's token without a service's key")
def user_token(fortress: Fortress) -> None:
    for headers in ({"x-openwebui-user-email": "boss@example.com", "x-openwebui-user-role": "admin"}, {"x-openwebui-user-jwt": "x.y.z"}):  # fmt: skip
        refused(fortress.ask(headers=headers), 401)
        refused(fortress.ask(GUEST, headers), 404)


@way("paths that lead elsewhere")
def paths(fortress: Fortress) -> None:
    for target in ("/v1/chat/../../slots", "/v1/embeddings/../chat/completions", "/v1/%2e%2e/slots", "/v1/..%2fslots", "//v1/chat/completions", "/v1/chat%2fcompletions", "/v1/chat/completions%00", "/v1/chat/completions;x", "/V1/chat/completions", "/v1\\chat\\completions", "/%76%31/chat/completions", "/v1/chat/completions/", "/v1/chat/completions%3f", "/v1/chat/completions%23"):  # fmt: skip
        refused(fortress.ask("sk-alice", target=target), 400, 404)


@way("engines' and the pod's own pages")
def inner_pages(fortress: Fortress) -> None:
    for target in ("/slots", "/props", "/metrics", "/health", "/lora-adapters", "/drain", "/load", "/loading", "/stats", "/config_dump", "/quitquitquit", "/v1/usage/../models", "/api/pull", "/api/delete", "/load_lora_adapter", "/v1/load_lora_adapter", "/collective_rpc", "/server_info", "/reset_prefix_cache"):  # fmt: skip
        for method in ("GET", "POST", "DELETE"):
            refused(fortress.ask("sk-alice", target=target, method=method), 400, 404)


@way("nonsense in place of HTTP")
def nonsense(fortress: Fortress) -> None:
    requests = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300, b"\x00" * 1000, b"GET / HTTP/1.1\r\n" * 100, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")  # fmt: skip

    def try_one(request: bytes) -> None:
        assert b"200" not in drain(fortress, request + b"\r\n\r\n", 1.0)[:16]

    at_once(try_one, requests)
