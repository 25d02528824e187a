from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from unit.gateway.conftest import Clock, model, routes

from stoker.gateway.cold_start import ColdStarts
from stoker.gateway.config import parse_routes
from stoker.gateway.decision import ALLOWED, Decision, Request
from stoker.gateway.dispatch import CLAIM_SECONDS, DEFAULT_HELD, READINGS, Dispatcher
from stoker.gateway.pool import Endpoint, Pool
from stoker.gateway.table import Hold, Model

CLUSTER = "team-a/qwen"
ONE, TWO, THREE = "10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"
HOLD = Hold(reject=False, wait_seconds=60, most_held=4, heartbeat_seconds=10, cold_start_seconds=90)
CHAT = Request("POST", "/v1/chat/completions", "Bearer sk-alice", document={"model": "qwen"})
STREAM = replace(CHAT, document={"model": "qwen", "stream": True})
WIRE = b"HTTP/1.1 200 OK\r\nx-gw-cluster: team-a/qwen\r\n\r\n"


class World:
    """A dispatcher with one model, and what it was asked and said."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cold_starts = ColdStarts(clock)
        self.dispatcher = Dispatcher(self.cold_starts, clock, clock.later)
        self.wakes: list[str] = []
        self.cancelled: list[str] = []
        self.dispatcher.on_wake = self.wakes.append
        self.dispatcher.on_cancel = self.cancelled.append
        self.answers: dict[int, bytes] = {}

    def configure(self, *endpoints: str, replicas: int = 1, **more: Any) -> None:
        (parsed,) = parse_routes(routes(model("qwen"))).models
        self.model: Model = replace(parsed, **more)
        self.dispatcher.configure([self.model], {CLUSTER: endpoints}, replicas)

    @property
    def pool(self) -> Pool:
        return self.dispatcher.pools[CLUSTER]

    def ask(self, caller: str = "alice", request: Request = CHAT, position: int | None = None) -> int:
        """As the policy does; the request's number, negative when it was refused."""
        number = self.dispatcher.next_number()
        decision = Decision(ALLOWED, cluster=CLUSTER, model="qwen", requested="qwen", key=caller, caller=caller)
        endpoint: Endpoint | None = None if self.pool.has_queue else self.pool.choose(position)
        if endpoint is not None:
            self.answers[number] = self.dispatcher.send(self.pool, endpoint, number, WIRE)
            return number
        problem = self.dispatcher.refusal(self.pool, "qwen")
        if problem is not None:
            self.answers[-number] = problem.body
            return -number
        waiter = self.dispatcher.hold(
            self.pool, number, decision, request, WIRE, position, lambda wire: self.answers.update({number: wire})
        )
        self.waiters = {**getattr(self, "waiters", {}), number: waiter}
        return number

    def end(self, *numbers: int) -> None:
        lines = [
            json.dumps({"x-gw-ticket": self.dispatcher.ticket(number)}, separators=(",", ":")) for number in numbers
        ]
        self.dispatcher.read_log("\n".join(lines).encode() + b"\n")

    def where(self, number: int) -> str:
        """The endpoint that a request was sent to; empty while it waits."""
        answer = self.answers.get(number, b"").decode()
        return answer.partition("x-gw-endpoint: ")[2].partition("\r\n")[0].partition(",")[0]

    def code(self, number: int) -> str:
        """Of a refusal, directly or by the relay."""
        answer = self.answers[number].decode()
        if number < 0:
            return str(json.loads(answer)["error"]["code"])
        return str(json.loads(answer.partition("x-gw-problem: ")[2].partition("\r\n")[0])["code"])


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock)


def test_requests_go_to_the_endpoint_with_the_fewest(world: World) -> None:
    world.configure(ONE, TWO, THREE)
    sent = [world.ask() for _ in range(6)]
    assert sorted(world.where(number) for number in sent) == [ONE, ONE, TWO, TWO, THREE, THREE]
    free = next(number for number in sent if world.where(number) == TWO)
    world.end(free)
    assert world.where(world.ask()) == TWO


def test_the_answer_names_other_endpoints_for_a_second_try_and_how_often_to_try(world: World) -> None:
    world.configure(ONE)
    assert b"x-gw-endpoint: 10.0.0.1:8080\r\nx-envoy-max-retries: 0\r\n" in world.answers[world.ask()]
    world.configure(ONE, TWO, THREE)
    answer = world.answers[world.ask()].decode()
    tries = answer.partition("x-gw-endpoint: ")[2].partition("\r\n")[0].split(",")
    assert sorted(tries) == [ONE, TWO, THREE]
    assert "x-envoy-max-retries: 2\r\n" in answer
    world.configure(*(f"10.0.0.{number}:8080" for number in range(9)))
    answer = world.answers[world.ask()].decode()
    assert len(set(answer.partition("x-gw-endpoint: ")[2].partition("\r\n")[0].split(","))) == 4
    assert "x-envoy-max-retries" not in answer, "the route's own number"


def test_a_conversation_returns_to_its_endpoint_until_that_is_much_busier_than_the_others(world: World) -> None:
    world.configure(ONE, TWO, THREE)
    first = world.ask(position=12345)
    home = world.where(first)
    for _ in range(5):
        world.end(first)
        first = world.ask(position=12345)
        assert world.where(first) == home
    busy = [world.where(world.ask(position=12345)) for _ in range(29)]
    # Thirty run: ten on average, so no more than 1.25 times that at home.
    assert 10 <= busy.count(home) + 1 <= 13
    assert set(busy) == {ONE, TWO, THREE}


def test_a_replica_gets_no_more_than_its_slots_and_the_next_waits_for_whichever_is_free_first(world: World) -> None:
    world.configure(ONE, TWO, slots=2)
    running = [world.ask() for _ in range(4)]
    waiting = [world.ask() for _ in range(3)]
    assert [world.where(number) for number in waiting] == ["", "", ""]
    assert world.pool.snapshot() == {"held": 3, "inFlight": 4, "arrivalsTotal": 7, "completionsTotal": 0, "endpoints": {ONE: 2, TWO: 2}}  # fmt: skip
    freed = world.where(running[2])
    world.end(running[2])
    assert [world.where(number) for number in waiting] == [freed, "", ""]
    world.end(running[0], running[1])
    assert "" not in [world.where(number) for number in waiting]
    assert (world.pool.held, world.pool.in_flight, world.pool.completions) == (0, 4, 3)


def test_gateway_replicas_share_slots_and_waiting_room(world: World) -> None:
    world.configure(ONE, slots=5, hold=HOLD, replicas=2)
    assert [world.where(world.ask()) for _ in range(4)] == [ONE, ONE, ONE, ""]
    world.ask()
    assert world.code(world.ask()) == "queue_full"
    world.configure(ONE, slots=5, hold=HOLD, replicas=1)
    assert world.pool.snapshot()["endpoints"] == {ONE: 5}


def test_without_known_slots_nobody_waits(world: World) -> None:
    world.configure(ONE)
    assert {world.where(world.ask()) for _ in range(2 * DEFAULT_HELD)} == {ONE}


def test_callers_take_turns(world: World) -> None:
    world.configure(ONE, slots=1)
    last = world.ask()
    greedy = [world.ask("greedy") for _ in range(5)]
    modest = [world.ask("modest") for _ in range(2)]
    order = []
    for _ in range(7):
        world.end(last)
        last = next(number for number in greedy + modest if world.where(number) and number not in order)
        order.append(last)
    assert order == [greedy[0], modest[0], greedy[1], modest[1], greedy[2], greedy[3], greedy[4]]


def test_a_full_queue_refuses_with_the_limit_in_words(world: World) -> None:
    world.configure(hold=HOLD)
    numbers = [world.ask() for _ in range(6)]
    assert [number < 0 for number in numbers] == [False] * 4 + [True] * 2
    assert b"4 requests wait" in world.answers[numbers[-1]]
    assert world.wakes == [CLUSTER], "one wake-up for all"
    world.configure(ONE, hold=HOLD)
    assert [world.where(number) for number in numbers[:4]] == [ONE] * 4


def test_without_holding_a_model_that_is_not_there_is_refused_at_once(world: World) -> None:
    world.configure()
    assert world.code(world.ask()) == "model_not_ready"
    assert world.wakes == []


def test_reject_refuses_at_once_and_wakes_all_the_same(world: World, clock: Clock) -> None:
    world.configure(hold=replace(HOLD, reject=True))
    assert world.code(world.ask()) == "model_loading"
    world.ask()
    assert world.wakes == [CLUSTER]
    clock.move(2)
    world.ask()
    assert world.wakes == [CLUSTER, CLUSTER]


def test_who_leaves_frees_his_place(world: World) -> None:
    world.configure(hold=HOLD)
    numbers = [world.ask() for _ in range(4)]
    world.dispatcher.leave(world.waiters[numbers[1]])
    assert world.pool.held == 3
    assert world.cancelled == [world.dispatcher.ticket(numbers[1])]
    assert world.ask() > 0
    world.configure(ONE, hold=HOLD)
    assert numbers[1] not in world.answers


def test_patience_ends_with_how_far_the_model_is(world: World, clock: Clock) -> None:
    world.configure(hold=HOLD)
    number = world.ask()
    world.cold_starts.update({"models": {CLUSTER: {"phase": "Loading", "progress": 0.4, "etaSeconds": 50}}})
    clock.move(59.9)
    assert number not in world.answers
    world.cold_starts.update({"models": {CLUSTER: {"phase": "Loading", "progress": 0.9, "etaSeconds": 8.2}}})
    clock.move(0.1)
    said = json.loads(world.answers[number].decode().partition("x-gw-problem: ")[2].partition("\r\n")[0])
    assert said["loading"] == {"phase": "Loading", "progress": 0.9, "etaSeconds": 9}
    assert said["headers"] == [["retry-after", "9"]]
    assert world.pool.held == 0


def test_patience_of_who_waits_for_a_busy_engine_ends_with_that(world: World, clock: Clock) -> None:
    world.configure(ONE, slots=1, hold=HOLD)
    world.ask()
    number = world.ask()
    clock.move(60)
    assert world.code(number) == "model_busy"


def test_a_start_that_failed_lets_nobody_wait(world: World) -> None:
    world.configure(hold=HOLD)
    number = world.ask()
    failed = world.cold_starts.update({"models": {CLUSTER: {"phase": "Pulling", "failed": True, "message": "no such image"}}})  # fmt: skip
    world.dispatcher.fail(failed)
    assert world.code(number) == "model_failed"
    assert world.code(world.ask()) == "model_failed"


def test_requests_of_the_last_replica_that_goes_are_held_and_wake_it(world: World) -> None:
    world.configure(ONE, slots=1, hold=HOLD)
    world.ask()
    waiting = world.ask()
    world.configure(slots=1, hold=HOLD)
    assert world.wakes == [CLUSTER]
    assert world.where(world.ask()) == ""
    world.configure(TWO, slots=1, hold=HOLD)
    assert world.where(waiting) == TWO


def test_a_stream_is_handed_over_at_its_first_sign_of_life_and_keeps_its_place(world: World, clock: Clock) -> None:
    world.configure(hold=replace(HOLD, most_held=3))
    stream, plain, last = world.ask(request=STREAM), world.ask(), world.ask(request=STREAM)
    clock.move(10)
    handed = world.answers.pop(stream).decode()
    assert "x-gw-cluster: answer\r\n" in handed
    assert f"x-gw-held: {world.dispatcher.ticket(stream)} 10\r\n" in handed
    assert plain not in world.answers
    assert world.pool.held == 3
    assert world.code(world.ask()) == "queue_full"
    back = world.dispatcher.claim(world.dispatcher.ticket(stream), lambda wire: world.answers.update({stream: wire}))
    assert back is not None
    assert world.dispatcher.claim(world.dispatcher.ticket(stream), lambda wire: None) is None, "only once"
    world.configure(ONE, slots=1, hold=HOLD)
    assert world.where(stream) == ONE
    assert world.where(plain) == ""
    assert last in world.answers


def test_a_stream_that_nobody_comes_back_with_gives_its_place_up(world: World, clock: Clock) -> None:
    world.configure(hold=HOLD)
    world.ask(request=STREAM)
    clock.move(10 + CLAIM_SECONDS)
    assert world.pool.held == 0
    assert world.dispatcher.claim("nonsense", lambda wire: None) is None
    assert world.dispatcher.claim("00000000-1", lambda wire: None) is None


def test_a_stream_that_waits_for_a_busy_engine_stays_with_envoy(world: World, clock: Clock) -> None:
    world.configure(ONE, slots=1, hold=HOLD)
    world.ask()
    number = world.ask(request=STREAM)
    clock.move(35)
    assert number not in world.answers
    world.configure(slots=1, hold=HOLD)
    clock.move(10)
    assert b"x-gw-held" in world.answers[number], "and is handed over once the model is gone"


def read(world: World, *counts: int, times: int = READINGS) -> None:
    for _ in range(times):
        world.clock.move(2)
        world.dispatcher.read_gauges(dict(zip([ONE, TWO], counts, strict=False)))


def test_what_the_log_lost_is_found_missing_in_envoys_gauges(world: World) -> None:
    world.configure(ONE, slots=2)
    world.ask()
    world.ask()
    waiting = world.ask()
    read(world, 1, times=READINGS - 1)
    assert world.where(waiting) == ""
    read(world, 1, times=1)
    assert world.where(waiting) == ONE
    assert world.pool.in_flight == 2


def test_a_request_that_has_just_begun_or_ended_is_no_reason_to_correct_anything(world: World) -> None:
    world.configure(ONE, slots=2)
    for count in (0, 1, 1, 0, 1, 1, 0, 1):
        world.end(world.ask())
        number = world.ask()
        read(world, count, times=1)
        assert number in world.dispatcher.tickets
        world.end(number)


def test_a_new_process_counts_what_its_predecessor_let_through(world: World) -> None:
    world.configure(ONE, slots=2)
    world.dispatcher.read_gauges({ONE: 2}, first=True)
    waiting = world.ask()
    assert world.where(waiting) == ""
    assert world.dispatcher.is_busy
    read(world, 1, times=1)
    assert world.where(waiting) == ONE
    world.end(waiting)
    read(world, 0)
    assert not world.dispatcher.is_busy
    assert world.pool.arrivals == world.pool.completions == 3


def test_requests_that_a_second_try_took_elsewhere_count_there(world: World) -> None:
    world.configure(ONE, TWO, slots=4)
    world.ask()
    sent = world.ask()
    went, other = (0, 1) if world.where(sent) == ONE else (1, 0)
    counts = [0, 0]
    counts[other] = 2
    read(world, *counts)
    loads = list(world.pool.snapshot()["endpoints"].values())
    assert loads[other] == 2
    assert loads[went] == 0


def test_a_client_that_left_before_any_engine_saw_it_is_not_waited_for(world: World) -> None:
    world.configure(ONE, slots=1)
    number = world.ask()
    waiting = world.ask()
    world.dispatcher.cancel(number)
    assert world.where(waiting) == ONE
    world.end(number)
    assert world.pool.in_flight == 1


def test_tickets_of_another_process_free_nothing(world: World) -> None:
    world.configure(ONE, slots=1)
    number = world.ask()
    world.dispatcher.read_log(b'{"x-gw-ticket":"00000000-%d"}\n{"no":"ticket"}\n' % number)
    assert world.pool.in_flight == 1


def test_a_model_that_is_no_longer_published_is_forgotten_when_its_last_request_ends(world: World) -> None:
    world.configure(ONE)
    number = world.ask()
    world.dispatcher.configure([], {}, 1)
    assert world.dispatcher.snapshot()[CLUSTER]["endpoints"] == {ONE: 1}
    world.end(number)
    world.dispatcher.configure([], {}, 1)
    assert world.dispatcher.snapshot() == {}


def test_a_replica_that_cannot_be_reached_gets_nothing_and_is_no_second_try_either(world: World) -> None:
    world.configure(ONE, TWO, THREE)
    world.dispatcher.leave_out(frozenset({TWO}))
    numbers = [world.ask() for _ in range(6)]
    assert {world.where(number) for number in numbers} == {ONE, THREE}
    assert TWO.encode() not in b"".join(world.answers.values())
    assert (world.pool.left_out, world.dispatcher.ready()) == (1, {ONE, TWO, THREE})
    world.configure(ONE, TWO)
    assert world.pool.left_out == 1, "it stays out when others change"
    world.dispatcher.leave_out(frozenset())
    assert world.where(world.ask()) == TWO


def test_the_last_replica_is_asked_though_it_cannot_be_reached(world: World) -> None:
    world.configure(ONE)
    world.dispatcher.leave_out(frozenset({ONE}))
    assert world.where(world.ask()) == ONE
    assert world.pool.left_out == 0


def test_a_place_at_a_replica_that_is_back_goes_to_whoever_waits(world: World) -> None:
    world.configure(ONE, TWO, slots=1)
    world.dispatcher.leave_out(frozenset({TWO}))
    first, second = world.ask(), world.ask()
    assert (world.where(first), world.where(second)) == (ONE, "")
    world.dispatcher.leave_out(frozenset())
    assert world.where(second) == TWO
