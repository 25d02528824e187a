"""HTTP/2 that no client sends: pseudo-headers, lengths and frames that could become another request on the way to an engine."""

from __future__ import annotations

import contextlib

from gateway.ways.frames import Headers, Http2, Outcome
from gateway.ways.registry import CHAT, CHAT_PATH, EMBED_PATH, GUEST, Fortress, at_once, dumps, way
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame


def head(path: str = CHAT_PATH, *more: tuple[str, str], method: str = "POST", key: str | None = GUEST) -> Headers:
    plain = [("authorization", f"Bearer {key}")] if key else []
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "gateway"), *plain, *more]


def attempt(fortress: Fortress, headers: Headers, body: bytes = b"") -> Outcome:
    with Http2(fortress.port) as connection:
        connection.send(connection.headers(headers, end=not body))
        if body:
            with contextlib.suppress(OSError):
                connection.send(DataFrame(1, body, flags=["END_STREAM"]).serialize())
        return connection.outcome()


def turned_away(fortress: Fortress, *requests: Headers, body: bytes = b"") -> None:
    """By a refusal, or by ending stream or connection."""

    def try_one(headers: Headers) -> None:
        found = attempt(fortress, headers, body)
        assert found.reset or found.gone or 400 <= found.status < 500, found

    at_once(try_one, requests)


@way("HTTP/2 without a key")
def no_key(fortress: Fortress) -> None:
    assert attempt(fortress, head(key=None), dumps(CHAT)).status == 401
    assert attempt(fortress, head(key="sk-wrong"), dumps(CHAT)).status == 401


@way("HTTP/2 with two Authorization headers")
def two_keys(fortress: Fortress) -> None:
    more = ("authorization", "Bearer sk-alice")
    assert attempt(fortress, head("/v1/models", more, method="GET", key="sk-wrong")).status == 401


@way("HTTP/2 pseudo-headers given twice")
def twice(fortress: Fortress) -> None:
    headers = head(EMBED_PATH)
    more = ((":path", "/slots"), (":method", "GET"), (":authority", "engine"), (":scheme", "https"))
    turned_away(fortress, *([headers[0], one, *headers[1:]] for one in more), body=dumps({"model": "embed"}))


@way("HTTP/2 pseudo-headers after the others")
def after_the_others(fortress: Fortress) -> None:
    headers = head(EMBED_PATH)
    turned_away(fortress, [*headers[:2], *headers[3:], (":path", CHAT_PATH)], body=dumps({"model": "embed"}))


@way("HTTP/2 pseudo-headers that are unknown or missing")
def unknown_pseudo(fortress: Fortress) -> None:
    turned_away(fortress, [(":x-gw-cluster", "team-a/qwen"), *head(EMBED_PATH)], body=dumps({"model": "embed"}))
    turned_away(fortress, [(":protocol", "websocket"), *head(CHAT_PATH, method="CONNECT")])
    without = ([header for index, header in enumerate(head()) if index != missing] for missing in range(3))
    turned_away(fortress, *without, body=dumps(CHAT))


@way("HTTP/2 paths that are none")
def odd_paths(fortress: Fortress) -> None:
    paths = ("", "slots", "*", "http://engine/slots", "/slots HTTP/1.1", "/v1/embeddings HTTP/1.1\r\nx-gw-cluster: team-a/qwen", "/v1/embeddings\x00", "\\slots")  # fmt: skip
    turned_away(fortress, *map(head, paths), body=dumps({"model": "embed"}))


@way("HTTP/2 methods that are none")
def odd_methods(fortress: Fortress) -> None:
    methods = ("", "GET /slots HTTP/1.1\r\nx: ", "POST ", "get", "CONNECT", "TRACE")
    turned_away(fortress, *(head(method=method) for method in methods), body=dumps(CHAT))


@way("HTTP/2 with lines in a header")
def lines_in_a_header(fortress: Fortress) -> None:
    lines = (("x", "y\r\nx-gw-cluster: team-a/qwen"), ("x\r\nx-gw-cluster", "team-a/qwen"), ("x", "y\x00z"), ("x: y\r\nz", "1"))  # fmt: skip
    turned_away(fortress, *(head(EMBED_PATH, line) for line in lines), body=dumps({"model": "embed"}))


@way("HTTP/2 with names in capitals")
def capitals(fortress: Fortress) -> None:
    turned_away(fortress, head("/v1/models", ("Authorization", "Bearer sk-alice"), method="GET", key=None))
    turned_away(fortress, head(CHAT_PATH, ("X-GW-Cluster", "team-a/qwen")), body=dumps(CHAT))


@way("HTTP/2 with HTTP/1's own headers")
def connection_headers(fortress: Fortress) -> None:
    lines = (("transfer-encoding", "chunked"), ("connection", "x-gw-key"), ("upgrade", "h2c"), ("te", "gzip"))
    turned_away(fortress, *(head(CHAT_PATH, line) for line in lines), body=b"0\r\n\r\nGET /slots HTTP/1.1\r\n\r\n")


@way("HTTP/2 with a length that is not the body's")
def wrong_length(fortress: Fortress) -> None:
    lengths = ("0", "3", "100000", "-1", "x", "3, 4")
    wrong = (head(EMBED_PATH, ("content-length", length)) for length in lengths)
    turned_away(fortress, *wrong, body=dumps({"model": "embed", "input": "x"}))


@way("HTTP/2 with our own headers")
def own_headers(fortress: Fortress) -> None:
    for name in ("x-gw-cluster", "x-gw-endpoint", "x-gw-answer", "x-gw-stage", "x-envoy-original-path"):
        assert attempt(fortress, head(CHAT_PATH, (name, "team-a/qwen")), dumps(CHAT)).status == 404
        assert attempt(fortress, head(CHAT_PATH, (name, "answer"), key=None), dumps(CHAT)).status == 401


@way("HTTP/2 to another authority")
def other_authority(fortress: Fortress) -> None:
    authorities = ("127.0.0.1:9090", "team-a/qwen", "x@engine", "", "engine\\x")
    headers = [header for header in head("/slots") if header[0] != ":authority"]
    turned_away(
        fortress, *([*headers[:3], (":authority", one), *headers[3:], ("host", "engine")] for one in authorities)
    )


@way("HTTP/2 headers that never end")
def continuation_flood(fortress: Fortress) -> None:
    with Http2(fortress.port) as connection:
        block = connection.encoder.encode(head())
        connection.send(HeadersFrame(1, data=block, flags=[]).serialize())
        with contextlib.suppress(OSError):
            for number in range(10_000):
                more = connection.encoder.encode([(f"x-{number}", "y" * 200)])
                connection.send(ContinuationFrame(1, data=more).serialize())
        # Envoy gives up the stream or the whole connection, whichever it comes to first.
        outcome = connection.outcome()
        assert outcome.reset or outcome.gone


@way("HTTP/2 header bomb")
def header_bomb(fortress: Fortress) -> None:
    """A long header in the table, named thousands of times in a few bytes."""
    with Http2(fortress.port) as connection:
        first = connection.encoder.encode([*head(), ("x-bomb", "y" * 3000)])
        again = connection.encoder.encode([("x-bomb", "y" * 3000)])
        assert len(again) < 10
        connection.send(HeadersFrame(1, data=first + again * 15_000, flags=["END_HEADERS", "END_STREAM"]).serialize())
        found = connection.outcome()
        assert found.gone or found.reset or found.status == 431


@way("HTTP/2 streams opened and reset at once")
def rapid_reset(fortress: Fortress) -> None:
    with Http2(fortress.port) as connection, contextlib.suppress(OSError):
        for number in range(5_000):
            stream = 2 * number + 1
            connection.send(connection.headers(head(key=None), stream) + RstStreamFrame(stream, 8).serialize())
    assert fortress.world.pod.request("GET", "/v1/models", key=GUEST).status == 200


@way("HTTP/2 pings and settings without end")
def ping_flood(fortress: Fortress) -> None:
    with Http2(fortress.port) as connection, contextlib.suppress(OSError):
        for _ in range(20_000):
            connection.send(PingFrame(0, b"12345678").serialize() + SettingsFrame(0).serialize())
    assert fortress.world.pod.request("GET", "/v1/models", key=GUEST).status == 200


@way("HTTP/2 frames that are none")
def odd_frames(fortress: Fortress) -> None:
    def try_one(frame: bytes) -> None:
        with Http2(fortress.port) as connection:
            connection.send(frame)
            found = connection.outcome()
            assert found.gone or found.reset

    frames = (
        DataFrame(1, b"before any header").serialize(),
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        ContinuationFrame(1, data=b"x").serialize(),
        HeadersFrame(1, data=b"\xff" * 40, flags=["END_HEADERS"]).serialize(),
        HeadersFrame(2, data=b"", flags=["END_HEADERS"]).serialize(),
    )
    at_once(try_one, frames)
