"""Which replica a request goes to, and how it waits for one: real Envoy and policy, fake engines."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awake import awake
from gateway.broken_engine import SAYS, BrokenEngine, LeavingEngine
from gateway.conftest import World, first_config
from gateway.fake_engine import FakeEngine
from gateway.pod import NAMESPACE, GatewayPod, until
from gateway.wire import ENDLESS, open_stream
from ports import free_port

LEFT_OUT = 'stoker_gateway_replicas_left_out{model="qwen"}'
CONVERSATIONS = itertools.count()
Together = Callable[[list[Callable[[], Any]]], list[Any]]


@pytest.fixture
def two(world: World) -> Iterator[tuple[FakeEngine, FakeEngine]]:
    """Two replicas of qwen, nothing running and nothing remembered."""
    one, two = world.engines
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [one.port, two.port])
    until(lambda: len(world.pod.load("qwen")["endpoints"]) == 2, "both replicas")
    # Envoy's threads take over an endpoint one after the other, each in its own time.
    until(lambda: all_answer(world.pod, "one", "two"), "both answer")
    idle(world.pod)
    for engine in (one, two):
        engine.seen.clear()
        engine.most_running = engine.running
    yield one, two
    for engine in (one, two):
        engine.fails_with = 0


def all_answer(pod: GatewayPod, *names: str) -> bool:
    """More conversations than sixteen only where those are at home with one of them by chance."""
    seen = {chat(pod, f"{number}") for number in range(16)}
    return seen == {*names} or seen | {chat(pod, f"{number}") for number in range(16, 80)} == {*names}


def idle(pod: GatewayPod) -> None:
    until(lambda: pod.load("qwen")["inFlight"] == pod.load("qwen")["held"] == 0, "nothing runs")


def with_slots(world: World, slots: int, **hold: Any) -> None:
    config = first_config()
    config.models[0]["slots"] = slots
    if hold:
        config.models[0]["hold"] = {"mode": "Hold", "maxWaitSeconds": 30, "maxHeldRequests": 100, "heartbeatSeconds": 10, **hold}  # fmt: skip
    config.key("marker", f"sk-{slots}{hold}").apply(world.kubernetes)
    until(lambda: world.pod.request("GET", "/v1/models", key=f"sk-{slots}{hold}").status == 200, "the slots")


def end_streams(engines: tuple[FakeEngine, FakeEngine]) -> None:
    for engine in engines:
        engine.ended += 1


def chat(pod: GatewayPod, text: str, seconds: float = 0.0, headers: dict[str, str] | None = None) -> str:
    """One conversation's first request; which engine answered."""
    body = {"model": "qwen", "messages": [{"role": "user", "content": text}], "metadata": {"wait": seconds}}
    answer = pod.request("POST", "/v1/chat/completions", body, headers=headers)
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["message"]["content"]).removeprefix("from ")


def test_a_replica_never_has_more_than_its_slots_and_all_are_answered(
    world: World, two: tuple[FakeEngine, FakeEngine], run_together: Together
) -> None:
    with_slots(world, 2)
    took: list[float] = []
    # Four rounds of 0.2 s, and between two rounds the time until a free place is known of.
    while not took or (min(took) >= 2.0 and len(took) < 4):
        began = awake()
        answered = Counter(run_together([lambda n=n: chat(world.pod, f"{n}", 0.2) for n in range(16)]))  # type: ignore[misc]
        took.append(awake() - began)
        assert [engine.most_running for engine in two] == [2, 2]
        assert sum(answered.values()) == 16
        assert min(answered["one"], answered["two"]) >= 4
        idle(world.pod)
    assert min(took) < 2.0, took


def test_a_client_that_leaves_the_queue_is_never_seen_by_an_engine(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    with_slots(world, 1)
    streams = [open_stream(world.pod, ENDLESS, 0.1) for _ in range(2)]
    connection = http.client.HTTPConnection("127.0.0.1", world.pod.port)
    body = json.dumps({"model": "qwen", "messages": [], "user": "impatient"})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": "Bearer sk-alice"})
    until(lambda: world.pod.load("qwen")["held"] == 1, "one waits")
    connection.close()
    until(lambda: world.pod.load("qwen")["held"] == 0, "none waits")
    for stream in streams:
        stream.close()
    idle(world.pod)
    assert not [seen for engine in two for seen in engine.seen if b"impatient" in seen.body]


def test_a_full_queue_answers_429_with_its_limit(world: World, two: tuple[FakeEngine, FakeEngine]) -> None:
    with_slots(world, 1, maxHeldRequests=1)
    streams = [open_stream(world.pod, ENDLESS, 0.1) for _ in range(2)]
    body = {"model": "qwen", "stream": True, "messages": []}
    waiting = http.client.HTTPConnection("127.0.0.1", world.pod.port)
    waiting.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": "Bearer sk-alice"})
    until(lambda: world.pod.load("qwen")["held"] == 1, "one waits")
    refused = world.pod.request("POST", "/v1/chat/completions", body)
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    assert "maxHeldRequests" in refused.error["message"]
    assert int(refused.headers["retry-after"]) > 0
    for stream in streams:
        stream.close()
    assert waiting.getresponse().status == 200
    waiting.close()


def test_conversations_stay_with_the_replica_that_knows_them(world: World, two: tuple[FakeEngine, FakeEngine]) -> None:
    # So many that not all of them are at home with one by chance.
    homes: dict[int, set[str]] = {number: set() for number in range(24)}
    for _ in range(2):
        for number, seen in homes.items():
            seen.add(chat(world.pod, f"conversation {number}"))
            idle(world.pod)
    assert all(len(seen) == 1 for seen in homes.values()), homes
    assert {home for seen in homes.values() for home in seen} == {"one", "two"}


@pytest.mark.parametrize("header", ["x-session-affinity", "x-session-id"])
def test_what_a_client_says_belongs_together_stays_together(
    world: World, two: tuple[FakeEngine, FakeEngine], header: str
) -> None:
    homes = {}
    for session in range(24):
        seen = set()
        for number in range(2):
            seen.add(chat(world.pod, f"something else {number}", headers={header: f"s{session}"}))
            idle(world.pod)
        homes[session] = seen
    assert all(len(seen) == 1 for seen in homes.values()), homes
    assert {home for seen in homes.values() for home in seen} == {"one", "two"}
    assert header in two[0].seen[-1].headers, "and the engine may use it, too"


def test_an_engine_that_says_503_is_not_asked_twice_and_another_is(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    two[0].fails_with = 503
    for number in range(10):
        assert chat(world.pod, f"conversation {number}") == "two"
    assert len(two[0].seen) <= 10
    assert len(two[1].seen) == 10
    two[1].fails_with = 503
    before = [len(engine.seen) for engine in two]
    assert world.pod.chat().status == 503
    assert [len(engine.seen) for engine in two] == [count + 1 for count in before]


def test_the_only_replica_is_asked_once(world: World) -> None:
    one = world.engines[0]
    try:
        one.fails_with = 503
        one.seen.clear()
        answer = world.pod.chat()
        assert (answer.status, answer.json) == (503, {"error": {"message": "not now"}}), "as the engine said it"
        assert len(one.seen) == 1
        one.fails_with = 500
        assert world.pod.chat().status == 500
        assert len(one.seen) == 2
    finally:
        one.fails_with = 0


def test_a_replica_on_its_way_out_gets_nothing_new_and_ends_what_it_has(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    streams = [open_stream(world.pod, ENDLESS, 0.1) for _ in range(4)]
    assert [engine.running for engine in two] == [2, 2]
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two[1].port], terminating=[two[0].port])
    numbers = itertools.count()

    def only_two() -> bool:
        return {chat(world.pod, f"conversation {next(numbers)}") for _ in range(8)} == {"two"}

    until(only_two, "it is taken out")
    before = len(two[0].seen)
    assert {chat(world.pod, f"conversation {number}") for number in range(10)} == {"two"}
    assert len(two[0].seen) == before
    end_streams(two)
    assert all(b"[DONE]" in stream.read() for stream in streams)


def test_held_requests_survive_the_policy_process(
    world: World, two: tuple[FakeEngine, FakeEngine], run_together: Together
) -> None:
    with_slots(world, 1)
    pod = world.pod
    streams = [open_stream(pod, ENDLESS, 0.1) for _ in range(2)]

    def kill_while_holding() -> int:
        until(lambda: pod.load("qwen")["held"] == 4, "four wait")
        killed = pod.kill("policy")
        until(lambda: pod.child("policy") not in (0, killed), "the next process")
        until(lambda: pod.load("qwen")["held"] == 4, "they wait again")
        running = int(pod.load("qwen")["inFlight"])
        end_streams(two)
        return running

    answered = run_together([kill_while_holding, *[lambda n=n: chat(pod, f"{n}") for n in range(4)]])  # type: ignore[list-item]
    assert answered[0] == 2, "the streams that run take up their places still"
    assert set(answered[1:]) <= {"one", "two"}
    assert all(b"[DONE]" in stream.read() for stream in streams)
    assert [engine.most_running for engine in two] == [1, 1]


def test_a_replica_that_cannot_be_reached_costs_few_calls_and_comes_back_by_itself(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    """Ready, as far as the cluster says, as a pod is whose node has just died."""
    pod, dead = world.pod, free_port()
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two[0].port, dead])
    until(lambda: f"127.0.0.1:{dead}" in pod.load("qwen")["endpoints"], "the dead one is known")

    def found_out() -> bool:
        assert {chat(pod, f"{number}") for number in range(8)} == {"one"}
        return pod.metric(LEFT_OUT) == 1

    until(found_out, "the dead one is left out")
    tried = connects(pod, dead)
    assert {chat(pod, f"{number}") for number in range(40)} == {"one"}
    assert connects(pod, dead) == tried, "Envoy has not tried it again"
    comes_back(world, two[0], dead)


@pytest.mark.parametrize("how", SAYS)
def test_a_replica_that_breaks_off_its_answers_is_left_out_until_it_answers(
    world: World, two: tuple[FakeEngine, FakeEngine], how: str
) -> None:
    pod, broken = world.pod, BrokenEngine(how)
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two[0].port, broken.port])
    until(lambda: f"127.0.0.1:{broken.port}" in pod.load("qwen")["endpoints"], "the broken one is known")
    try:
        until(lambda: is_left_out_after_a_call(pod), "the broken one is left out")
        if how != "resets at once":
            tried = broken.chats
            assert [ask(pod) for _ in range(40)] == [True] * 40
            assert broken.chats == tried, "nobody was sent there"
        broken.close()
        comes_back(world, two[0], broken.port)
    finally:
        broken.close()


def test_the_last_replica_is_asked_though_it_breaks_off(world: World, two: tuple[FakeEngine, FakeEngine]) -> None:
    pod, broken = world.pod, [BrokenEngine("resets"), BrokenEngine("hangs up")]
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port for engine in broken])
    try:
        until(lambda: set(pod.load("qwen")["endpoints"]) == {f"127.0.0.1:{one.port}" for one in broken}, "both")
        until(lambda: not ask(pod) and all(engine.chats > 1 for engine in broken), "both break off")
        tried = [engine.chats for engine in broken]

        def all_are_asked() -> bool:
            assert not ask(pod)
            return all(engine.chats > before + 1 for engine, before in zip(broken, tried, strict=True))

        until(all_are_asked, "neither is given up")
        assert pod.metric(LEFT_OUT) == 0
    finally:
        world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two[0].port])
        for engine in broken:
            engine.close()


def test_one_that_looks_healthy_and_breaks_off_every_chat_is_asked_seldom(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    pod, broken = world.pod, BrokenEngine("resets", healthy=True)
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two[0].port, broken.port])
    until(lambda: f"127.0.0.1:{broken.port}" in pod.load("qwen")["endpoints"], "the broken one is known")
    try:
        until(lambda: is_left_out_after_a_call(pod), "it is left out")
        until(lambda: pod.metric(LEFT_OUT) == 0, "it is let in again, for it answers when it is asked")
        asked = [time.monotonic()]
        until(lambda: is_left_out_after_a_call(pod) or asked.append(time.monotonic()), "it is left out again")
        # Two seconds this time, after one; it began after the last call but one was over. What takes longer tells nothing.
        tried = broken.chats
        while True:
            answered, chats = ask(pod), broken.chats
            if time.monotonic() > asked[-1] + 1.5:
                break
            assert answered
            assert chats == tried
    finally:
        stays_alone(world, two[0], broken.port)
        broken.close()


def test_no_request_meets_a_connection_that_an_engine_ends_after_a_stream_without_saying_so(
    world: World, two: tuple[FakeEngine, FakeEngine]
) -> None:
    pod, engine = world.pod, LeavingEngine()
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port])
    try:
        until(lambda: pod.load("qwen")["endpoints"].keys() == {f"127.0.0.1:{engine.port}"}, "it is the only one")
        until(lambda: ask(pod), "it is asked")
        asked = engine.connections
        assert [ask(pod) for _ in range(10)] == [True] * 10
        assert engine.connections == asked + 10
    finally:
        stays_alone(world, two[0], engine.port)
        engine.close()


def comes_back(world: World, one: FakeEngine, port: int) -> None:
    """As soon as an engine answers there, it is let in again."""
    engine = FakeEngine("back", port=port)
    try:
        until(lambda: world.pod.metric(LEFT_OUT) == 0, "it is back")
        until(lambda: all_answer(world.pod, "one", "back"), "both answer")
    finally:
        stays_alone(world, one, port)
        engine.close()


def stays_alone(world: World, one: FakeEngine, gone: int) -> None:
    """Nobody is sent to the other port any more, so it may be closed."""
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [one.port])
    until(lambda: f"127.0.0.1:{gone}" not in world.pod.load("qwen")["endpoints"], "it is gone")


def ask(pod: GatewayPod) -> bool:
    """Whether a short stream came whole; each is a conversation of its own."""
    messages = [{"role": "user", "content": f"conversation {next(CONVERSATIONS)}"}]
    try:
        return b"[DONE]" in pod.chat(stream=True, messages=messages).body
    except http.client.IncompleteRead:
        return False


def is_left_out_after_a_call(pod: GatewayPod) -> bool:
    ask(pod)
    return pod.metric(LEFT_OUT) == 1


def connects(pod: GatewayPod, port: int) -> int:
    """Connections that Envoy could not make there."""
    stats = pod.admin("/clusters")
    return sum(int(line.rpartition("::")[2]) for line in stats.splitlines() if f":{port}::cx_connect_fail::" in line)
