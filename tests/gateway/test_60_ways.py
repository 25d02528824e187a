"""More than sixty ways round the door, each tried at a real gateway: none reaches the fake engine behind it, none ends a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.conftest import World, first_config
from gateway.fake_issuer import FakeIssuer
from gateway.pod import until
from gateway.ways import bodies, credentials, http1, http2, members, slow, tokens
from gateway.ways.registry import GUEST, WAYS, Fortress, Way, dumps

ATTACKS = (bodies, credentials, http1, http2, members, slow, tokens)
"""Each puts its ways on the list when it is imported."""

ROLES = [{"name": "reader", "models": ["*"]}, {"name": "admin", "models": ["*"]}]
MOST_GROWTH = 150 << 20
"""Of Envoy and policy together: a body of 32 MiB may be held, and memory is not given back at once."""


@pytest.fixture(scope="module")
def fortress(session_world: World) -> Iterator[Fortress]:
    issuer = FakeIssuer()
    issuer.add_key("first")
    config = first_config().key("guest", GUEST, models=["embed"])
    config.model("ears", paths=["/v1/audio/transcriptions"], deployment="embed")
    config.model("llama", paths=["/api/chat"], deployment="embed")
    route = {"name": "either", "backends": [{"model": "embed", "weight": 1}]}
    config.more = {"jwt": [issuer.route()], "roles": ROLES, "routes": [route]}
    session_world.current = config
    session_world.apply(config)
    until(
        lambda: session_world.pod.request("GET", "/v1/models", key=issuer.token()).status == 200,
        "the key set",
    )
    before = memory(session_world)
    yield Fortress(session_world, issuer)
    grown = memory(session_world) - before
    assert grown < MOST_GROWTH, f"{grown >> 20} MiB more than before"
    session_world.apply(first_config())
    issuer.close()


def memory(world: World) -> int:
    """Resident bytes of Envoy, policy and relay."""
    assert world.pod.envoy is not None
    return sum(resident(pid) for pid in (world.pod.envoy.pid, world.pod.child("policy"), world.pod.child("relay")))


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_the_same_calls_done_right_are_served(fortress: Fortress) -> None:
    """Otherwise an attack could fail for being clumsy."""
    for engine in fortress.world.engines:
        engine.seen.clear()
    body = dumps({"model": "embed", "input": "x"})
    assert http1.post(fortress, b"Content-Length: %d" % len(body), body=body).status == 200
    size = b"%x\r\n" % len(body)
    assert http1.post(fortress, b"Transfer-Encoding: chunked", body=size + body + b"\r\n0\r\n\r\n").status == 200
    assert http2.attempt(fortress, http2.head("/v1/embeddings"), body).status == 200
    assert fortress.ask(fortress.issuer.token("eve")).status == 200
    form, headers = fortress.world.pod.form({"file": b"x", "model": "ears"})
    assert fortress.ask("sk-alice", headers, form, target="/v1/audio/transcriptions").status == 200
    assert fortress.ask("sk-alice", body={"model": "either", "input": "x"}, target="/v1/embeddings").status == 200
    llama = {"model": "llama", "options": {"seed": 1}, "tools": [{"options": 1}]}
    assert fortress.ask("sk-alice", body=llama, target="/api/chat").status == 200
    assert fortress.world.seen == 7


def test_there_are_at_least_sixty() -> None:
    assert len(WAYS) >= 60
    assert {way.attack.__module__ for way in WAYS.values()} == {module.__name__ for module in ATTACKS}


@pytest.mark.parametrize("way", WAYS.values(), ids=lambda way: way.name)
def test_the_way_round_is_closed(fortress: Fortress, way: Way) -> None:
    world = fortress.world
    assert world.pod.envoy is not None
    processes = (world.pod.envoy.pid, world.pod.child("policy"), world.pod.child("relay"))
    for engine in world.engines:
        engine.seen.clear()
    way.attack(fortress)
    seen = [(request.method, request.target, request.body) for engine in world.engines for request in engine.seen]
    assert len(seen) <= way.lets_through, seen
    assert all(target == "/v1/embeddings" and b"qwen" not in body for _, target, body in seen), seen
    assert (world.pod.envoy.pid, world.pod.child("policy"), world.pod.child("relay")) == processes
    assert world.pod.envoy.poll() is None
    assert world.pod.chat().status == 200, "others are served as before"
