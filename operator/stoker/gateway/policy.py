"""The policy process: answers Envoy's ext_authz over a Unix socket, one decision a request, at once or when there is a place."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

import uvloop

from stoker.environment import Environment
from stoker.gateway import admin
from stoker.gateway.access_log import LogReader
from stoker.gateway.admin import NotAnswering
from stoker.gateway.admission import Admissions
from stoker.gateway.affinity import conversation_position, position_of
from stoker.gateway.cold_start import ColdStarts
from stoker.gateway.decide import choose_backend, decide, decide_again, refused, relayed
from stoker.gateway.decision import ALLOWED, Decision, Request
from stoker.gateway.dispatch import Dispatcher, Later, Timer
from stoker.gateway.drain import Drain
from stoker.gateway.endings import Gauges, follow_endings, follow_gauges, parse_lines, read_gauges
from stoker.gateway.endpoints import CONVERSATIONS
from stoker.gateway.introspection import Inquiries
from stoker.gateway.limits import Reading
from stoker.gateway.load import LoadApi
from stoker.gateway.metrics import DecisionMetrics
from stoker.gateway.openai_errors import (
    ASK_ABOUT_TOKEN,
    UNKNOWN_SIGNING_KEY,
    ApiProblem,
    model_not_ready,
)
from stoker.gateway.outliers import Outliers
from stoker.gateway.pool import Asking, Waiter
from stoker.gateway.probes import ProbeServer
from stoker.gateway.processes import prepare_process, run_until_told
from stoker.gateway.protocol import LargeBodies, PolicyProtocol
from stoker.gateway.routing import Route
from stoker.gateway.settings import Settings
from stoker.gateway.shared_limits import FollowRedis, SharedCounters
from stoker.gateway.state import StateReader
from stoker.gateway.table import Table
from stoker.gateway.web import serve_on
from stoker.gateway.wire import (
    LAST_OF_ITS_CONNECTION,
    NO_CONFIGURATION,
    NOT_HTTP,
    lines_of,
    parse_request,
    render,
    session_of,
    with_lines,
)

logger = logging.getLogger(__name__)

HELD = Decision("held")
TICK_SECONDS = 1.0
HAND_ON_SECONDS = 5.0
"""At the end of the pod; less than the supervisor waits for."""


class Policy:
    """The present table, what was counted with it, and who waits for what."""

    def __init__(
        self,
        reader: StateReader,
        metrics: DecisionMetrics,
        clock: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self.reader = reader
        self.metrics = metrics
        self.admissions = Admissions(clock)
        self.cold_starts = ColdStarts(clock)
        self.dispatcher = Dispatcher(self.cold_starts, clock, later or _loop_later)
        self.dispatcher.on_late_answer = metrics.count_late
        metrics.running = lambda: [(pool.name, pool.held, pool.in_flight) for pool in self.dispatcher.pools.values()]
        metrics.left_out = lambda: [(pool.name, pool.left_out) for pool in self.dispatcher.pools.values()]
        self.dispatcher.on_cancel = self.admissions.cancelled
        self.last_number = 0
        """Of the request that was answered last, where it went to an engine."""
        self.inquiries: Inquiries | None = None
        self.on_unknown_key: Callable[[], None] = lambda: None
        """Called when a token names a key that is in no set."""

    def reload(self) -> None:
        """Take over a changed configuration. Who waits must still be let in by it."""
        before = self.reader.table
        if not self.reader.load() or (table := self.reader.table) is None:
            return
        endpoints = self.reader.endpoints
        self.dispatcher.configure(table.routes.models, endpoints, table.routes.replicas)
        if table is before:
            return
        self._reconsider(table)
        ready = sum(bool(endpoints.get(model.cluster)) for model in table.routes.models)
        self.metrics.configured(self.reader.generation, len(table.routes.models), ready, len(table.keys))
        logger.info(
            "configuration %d: %d models, %d of them ready, %d keys",
            self.reader.generation,
            len(table.routes.models),
            ready,
            len(table.keys),
        )

    def _reconsider(self, table: Table) -> None:
        now = time.time()
        for waiter in [waiter for pool in self.dispatcher.pools.values() for waiter in pool.waiters()]:
            decision = decide_again(table, waiter.request, waiter.decision.requested, now)
            if decision.reason != ALLOWED:
                self.dispatcher.refuse(waiter, decision)
            elif decision.route != waiter.decision.route or (
                decision.route is None and decision.cluster != waiter.decision.cluster
            ):
                self.dispatcher.refuse(waiter, relayed(decision, model_not_ready(decision.requested)))

    def answer(self, head: bytes, body: bytes, reply: Callable[[bytes], None]) -> bytes | Waiter | Asking:
        """The answer to one question of Envoy's, or who waits for it and gets it by `reply` when there is a place."""
        began = time.perf_counter()
        self.last_number = 0
        table = self.reader.table
        if table is None:
            return NO_CONFIGURATION
        request = parse_request(head, body)
        if request is None:
            return NOT_HTTP
        if request.place and (waiter := self.dispatcher.claim(request.place, reply)) is not None:
            return waiter
        decision = self._decide(table, request)
        if decision.reason == ASK_ABOUT_TOKEN:
            return self._inquire(table, request, head, body, reply) or decision.wire
        wire = decision.wire
        answer: bytes | Waiter | Asking = wire
        if decision.reason is ALLOWED:
            if (shared := self.admissions.asked_first(decision, request)) is not None:
                return self._ask(shared, table, decision, request, session_of(head), reply)
            decision, answer = self._dispatch(table, decision, request, session_of(head), reply)
        elif decision.reason == UNKNOWN_SIGNING_KEY:
            self.on_unknown_key()
        self.metrics.count(decision.reason, decision.model, time.perf_counter() - began)
        return answer

    def _decide(self, table: Table, request: Request) -> Decision:
        decision = decide(table, request, time.time())
        if decision.route is not None:
            decision = self._choose(decision, decision.route, request)
        if not decision.wire:
            decision.wire = render(decision)
        return decision

    def _inquire(
        self, table: Table, request: Request, head: bytes, body: bytes, reply: Callable[[bytes], None]
    ) -> Asking | None:
        """Have the relay ask whose token it is, and decide again; None where too much is asked already."""
        if self.inquiries is None:
            return None
        asking = Asking()

        def settled() -> None:
            if asking.over:
                return
            try:
                answer = self.answer(head, body, reply)
            except Exception:
                logger.exception("a decision failed")
                answer = NO_CONFIGURATION
            asking.deliver(answer)

        return asking if self.inquiries.ask(table, request.authorization[7:].strip(), settled) else None

    def _choose(self, decision: Decision, route: Route, request: Request) -> Decision:
        """The deployment of a route that a request goes to, or waits for."""
        pools = self.dispatcher.pools

        def is_ready(cluster: str) -> bool:
            return cluster in pools and bool(pools[cluster].endpoints)

        return choose_backend(decision, route, request, is_ready)

    def _send_outside(
        self, table: Table, decision: Decision, request: Request, told: list[Reading] | None
    ) -> tuple[Decision, bytes]:
        """To a backend that is not ours: nobody counts its places."""
        ticket = self.dispatcher.ticket(self.dispatcher.next_number())
        admission = self.admissions.admit(table, decision, request, ticket, told)
        if admission.problem is not None:
            return _refuse(decision, request, admission.problem)
        return decision, with_lines(decision.wire, lines_of([*admission.headers, ("x-gw-ticket", ticket)]))

    def _ask(
        self,
        shared: SharedCounters,
        table: Table,
        decision: Decision,
        request: Request,
        session: str,
        reply: Callable[[bytes], None],
    ) -> Asking:
        """What all replicas together have let in, first."""
        asking, began = Asking(), time.perf_counter()

        def go_on(told: list[Reading] | None) -> None:
            try:
                made, answer = settle(told)
            except Exception:
                # A bug: as in the protocol, this request fails closed.
                logger.exception("a decision failed")
                asking.deliver(NO_CONFIGURATION)
                return
            self.metrics.count(made.reason, made.model, time.perf_counter() - began)
            if not asking.over:
                asking.deliver(answer)

        def settle(told: list[Reading] | None) -> tuple[Decision, bytes | Waiter]:
            present = self.reader.table or table
            again = decision if present is table else self._decide(present, request)
            self.last_number = 0
            if asking.over or again.reason is not ALLOWED:
                self._give_back(decision, request, told)
                return again, render(again)
            return self._dispatch(present, again, request, session, reply, told)

        tokens = self.admissions.estimate(decision, request)
        shared.take(decision.scopes, tokens, table.routes.replicas, go_on)
        return asking

    def _give_back(self, decision: Decision, request: Request, told: list[Reading] | None) -> None:
        if told is not None and all(reading.fits for reading in told):
            self.admissions.give_back(decision, request)

    def _dispatch(
        self,
        table: Table,
        decision: Decision,
        request: Request,
        session: str,
        reply: Callable[[bytes], None],
        told: list[Reading] | None = None,
    ) -> tuple[Decision, bytes | Waiter]:
        """To an endpoint, or into the queue, if the caller's limits and the queue's let him."""
        if not decision.cluster:
            return self._send_outside(table, decision, request, told)
        dispatcher = self.dispatcher
        pool = dispatcher.pools[decision.cluster]
        position = position_of(session.encode()) if session else None
        if position is None and len(pool.endpoints) != 1 and request.path in CONVERSATIONS:
            position = conversation_position(request.document)
        endpoint = None if pool.has_queue else pool.choose(position)
        if endpoint is None and (problem := dispatcher.refusal(pool, decision.requested)) is not None:
            self._give_back(decision, request, told)
            return _refuse(decision, request, problem)
        number = dispatcher.next_number()
        admission = self.admissions.admit(table, decision, request, dispatcher.ticket(number), told)
        if admission.problem is not None:
            return _refuse(decision, request, admission.problem)
        wire = with_lines(decision.wire, lines_of(admission.headers)) if admission.headers else decision.wire
        if request.streams:
            wire = with_lines(wire, LAST_OF_ITS_CONNECTION)
        if endpoint is not None:
            self.last_number = number
            return decision, dispatcher.send(pool, endpoint, number, wire)
        return HELD, dispatcher.hold(pool, number, decision, request, wire, position, reply)

    def ended(self, lines: bytes) -> None:
        """Requests that an engine has served are over: their places are free, and their tokens are known."""
        if self.admissions.waiting:
            for line in parse_lines(lines):
                self.admissions.ended(line)
        self.dispatcher.read_log(lines)


def _refuse(decision: Decision, request: Request, problem: ApiProblem) -> tuple[Decision, bytes]:
    made = refused(decision, request, problem)
    return made, render(made)


def _loop_later(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)


class KeyRequest:
    """Asks the relay for new key sets, now and then at most: a stranger can make up as many unknown keys as he likes."""

    def __init__(self, settings: Settings) -> None:
        self._socket = settings.answer_socket
        self._asked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Without waiting for it; the relay has an interval of its own."""
        now = time.monotonic()
        if now - self._asked_at >= 1.0:
            self._asked_at = now
            self._task = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        try:
            await admin.call(self._socket, "GET", "/", headers="x-gw-answer: refresh-keys\r\n", seconds=2.0)
        except NotAnswering as error:
            logger.warning("new keys of issuers cannot be asked for: %s", error)


async def serve(
    settings: Settings, sockets: tuple[socket.socket, socket.socket, socket.socket], changes: int, alive: int
) -> None:
    """Decide until told to stop; `sockets` are Envoy's, the one for probes, and the one for the drain."""
    loop = asyncio.get_running_loop()
    metrics = DecisionMetrics()
    policy = Policy(StateReader(settings.state), metrics)
    dispatcher = policy.dispatcher
    policy.reload()
    redis = FollowRedis(f"{settings.namespace}/{settings.name}", policy.admissions)
    redis.look(policy.reader.table)

    def on_change() -> None:
        os.read(changes, 4096)
        policy.reload()
        redis.look(policy.reader.table)

    loop.add_reader(changes, on_change)
    policy.on_unknown_key = KeyRequest(settings).ask
    policy.inquiries = Inquiries(settings)
    load = LoadApi(policy.reader, dispatcher, policy.cold_starts)
    drain = Drain(settings)
    probes = ProbeServer(settings, policy.reader, metrics, load.handle, lambda: drain.has_begun)
    log = LogReader.at_end(settings.log)
    # What an earlier process let through takes up its places.
    if (gauges := await read_gauges(settings)) is not None:
        dispatcher.read_gauges(gauges.active, first=True)
    outliers = Outliers(dispatcher.leave_out, gauges or Gauges())

    def on_gauges(gauges: Gauges) -> None:
        dispatcher.read_gauges(gauges.active)
        outliers.read_gauges(gauges, dispatcher.ready())

    def on_lines(lines: bytes) -> None:
        policy.ended(lines)
        outliers.read_log(lines, dispatcher.ready)

    large = LargeBodies()
    server = await loop.create_unix_server(lambda: PolicyProtocol(policy, large), sock=sockets[0], backlog=4096)
    async with server, await serve_on(sockets[1], probes.handle), await serve_on(sockets[2], drain.handle):
        await run_until_told(
            follow_endings(
                log,
                on_lines,
                lambda: dispatcher.is_busy,
                lambda: dispatcher.is_pressed or policy.admissions.waiting,
                dispatcher.begun,
            ),
            follow_gauges(settings, on_gauges, dispatcher.was_busy),
            outliers.follow(),
            tick(alive),
        )
        # Envoy has ended before, so this is all there will be.
        await probes.usage_log.handed_on(HAND_ON_SECONDS)


async def tick(alive: int) -> None:
    """Tells the supervisor that decisions are being made; endless."""
    while True:
        os.eventfd_write(alive, 1)
        await asyncio.sleep(TICK_SECONDS)


def main() -> int:
    """Entry of the process; its sockets are open already, so that callers wait rather than fail while it starts."""
    parser = argparse.ArgumentParser()
    for name in ("policy", "http", "drain", "changes", "alive"):
        parser.add_argument(f"--{name}", type=int, required=True, help=f"file descriptor: {name}")
    arguments = parser.parse_args()
    prepare_process("policy")
    uvloop.run(
        serve(
            Settings.from_environment(Environment()),
            (
                socket.socket(fileno=arguments.policy),
                socket.socket(fileno=arguments.http),
                socket.socket(fileno=arguments.drain),
            ),
            arguments.changes,
            arguments.alive,
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
