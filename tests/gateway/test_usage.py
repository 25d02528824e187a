"""Usage from a real gateway into the usage process and back out of /v1/usage; the engine is a fake that counts, too."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway.counting_engine import CountingEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Answer, Config, GatewayPod, exchange, until
from gateway.usage_pod import Postgres, UsagePod, put_pods

from stoker.portal_token import portal_token

KEYS = {"sk-alice": "alice", "sk-bob": "bob"}


class World:
    def __init__(self, folder: Path, *, database_url: str = "") -> None:
        self.kubernetes, self.engine = FakeKubernetes(), CountingEngine()
        self.folder = folder
        self.before = (0, 0, 0)
        """What usage had counted when the test began."""
        self.pods = [self.new_pod("one")]
        self.usage = UsagePod(folder, self.kubernetes, database_url=database_url)
        self.kubernetes.put_endpoints(NAMESPACE, "qwen", [self.engine.port])
        config = Config().model("qwen").model("other", deployment="qwen")
        config.key("alice", "sk-alice").key("bob", "sk-bob").key("root", "sk-root", role="admin")
        config.key("carol", "sk-carol", owner="Carol Ä").key("dave", "sk-dave", owner="Dave")
        config.more = {"usageUrl": self.usage.url, "roles": [{"name": "admin", "models": ["*"]}]}
        config.apply(self.kubernetes)

    @property
    def pod(self) -> GatewayPod:
        return self.pods[0]

    def new_pod(self, name: str) -> GatewayPod:
        folder = self.folder / name
        folder.mkdir()
        return GatewayPod(folder, self.kubernetes)

    def start(self) -> None:
        put_pods(self.kubernetes, *self.pods)
        self.usage.start()
        for pod in self.pods:
            pod.start()

    def stop(self) -> None:
        for pod in self.pods:
            pod.stop()
        self.usage.stop()
        self.kubernetes.close()
        self.engine.close()

    def told(self) -> tuple[int, int, int]:
        return self.engine.told["requests"], self.engine.told["prompt"], self.engine.told["completion"]

    def counted(self) -> tuple[int, ...] | None:
        total = self.usage.total()
        if not total:
            return None
        now = (total["requests"], total["prompt_tokens"], total["completion_tokens"])
        return tuple(new - old for new, old in zip(now, self.before, strict=True))

    def expect_equal(self) -> None:
        try:
            until(lambda: self.counted() == self.told(), "sums are equal")
        except AssertionError as error:
            raise AssertionError(f"counted {self.counted()}, the engine told {self.told()}") from error

    def report(self, key: str = "sk-alice", query: str = "") -> Answer:
        return self.pod.request("GET", f"/v1/usage{query}", key=key)

    def ask(self, seed: random.Random, pod: GatewayPod | None = None) -> int:
        body = {
            "model": seed.choice(["qwen", "other"]),
            "stream": seed.random() < 0.5,
            "metadata": {"prompt": seed.randrange(1, 1000), "completion": seed.randrange(1, 30), "gap": 0.002},
        }
        return (pod or self.pod).request("POST", "/v1/chat/completions", body, seed.choice(list(KEYS))).status

    @contextmanager
    def load(self, callers: int = 4) -> Iterator[list[int]]:
        statuses: list[int] = []
        over = threading.Event()

        def call(number: int) -> None:
            seed = random.Random(number)
            while not over.is_set():
                try:
                    statuses.append(self.ask(seed))
                except (OSError, http.client.HTTPException):
                    statuses.append(0)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield statuses
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def lasting_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("usage"))
    try:
        world.start()
        until(world.counted, "the usage process")
        yield world
    finally:
        world.stop()


@pytest.fixture
def world(lasting_world: World) -> World:
    """The same for all tests that break nothing; each begins at zero."""
    world = lasting_world
    world.before = (0, 0, 0)
    world.engine.told.clear()
    world.before = until(world.counted, "the usage process")
    return world


@pytest.fixture
def short_world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        world.start()
        yield world
    finally:
        world.stop()


def test_everybody_sees_his_own_and_admins_all_by_whatever_they_ask_for(world: World) -> None:
    for key, prompt in (("sk-carol", 10), ("sk-dave", 100)):
        for model in ("qwen", "qwen", "other"):
            body = {"model": model, "metadata": {"prompt": prompt, "completion": 5}}
            assert world.pod.request("POST", "/v1/chat/completions", body, key).status == 200
    world.expect_equal()
    own = world.report("sk-carol").json
    assert own["total"]["prompt_tokens"] == 30, own
    assert {(row["model"], row["requests"], row["completion_tokens"]) for row in own["data"]} == {("qwen", 2, 10), ("other", 1, 5)}  # fmt: skip
    assert world.report("sk-carol", "?key=dave").json["total"]["requests"] == 0, "nobody asks for another's"
    everybody = {row["key"]: row for row in world.report("sk-root", "?by=key,user").json["data"]}
    assert (everybody["carol"]["user"], everybody["carol"]["prompt_tokens"]) == ("Carol Ä", 30)
    assert (everybody["dave"]["user"], everybody["dave"]["prompt_tokens"]) == ("Dave", 300)
    assert world.report("sk-root", "?key=dave&model=other").json["total"]["prompt_tokens"] == 100
    assert world.report("sk-root", "?from=2020-01-01&to=2020-12-31").json["data"] == []
    table = world.report("sk-root", "?by=user,model&format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.body.decode())))
    named = {(row["user"], row["model"], row["requests"]) for row in rows if row["user"]}
    assert named == {(user, *one) for user in ("Carol Ä", "Dave") for one in (("qwen", "2"), ("other", "1"))}
    for query in (
        "?by=secret",
        "?from=yesterday",
        "?format=xml",
        "?sql=1",
        "?from=2026-01-02&to=2026-01-01",
        "?by=day&by=key",
    ):
        assert world.report(query=query).error["code"] == "invalid_parameter", query
    assert world.report("sk-wrong").status == 401
    assert world.pod.request("POST", "/v1/usage", {}).error["code"] == "method_not_allowed"
    keys = world.usage.get("/keys")["keys"]
    assert (keys["carol"]["requests"], keys["carol"]["promptTokens"], keys["carol"]["completionTokens"]) == (3, 30, 15)
    assert keys["carol"]["lastUsedTime"].startswith("20")


def test_a_stream_that_was_left_is_estimated_and_flagged(world: World) -> None:
    first = world.usage.total()
    connection = http.client.HTTPConnection("127.0.0.1", world.pod.port)
    body = {"model": "qwen", "stream": True, "metadata": {"completion": 500, "gap": 0.005}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": "Bearer sk-alice"})
    response = connection.getresponse()
    for _ in range(40):
        response.readline()
    response.close()
    connection.close()
    total = until(lambda: (t := world.usage.total())["requests"] > first["requests"] and t, "the request is counted")
    more = {name: total[name] - first[name] for name in total}
    assert (more["requests"], more["estimated_requests"], more["failed_requests"]) == (1, 1, 0)
    assert more["completion_tokens"] > 3
    assert more["prompt_tokens"] > 3


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_policy_processes_lose_and_double_nothing(world: World, kills: int) -> None:
    seed = random.Random(7)
    with world.load() as statuses:
        for _ in range(kills):
            killed = world.pod.kill("policy")
            until(lambda killed=killed: world.pod.child("policy") not in (0, killed), "the next policy process")
            count = len(statuses)
            until(lambda count=count: len(statuses) > count + seed.randrange(1, 15), "calls go on")
    assert set(statuses) == {200}
    world.expect_equal()


def test_a_killed_usage_process_loses_and_doubles_nothing(world: World) -> None:
    with world.load() as statuses:
        for number in range(4):
            count = len(statuses)
            until(lambda count=count: len(statuses) > count + 15, "calls go on")
            world.usage.kill()
            if number == 2:
                assert world.report().error["code"] == "usage_unavailable"
            world.usage.start()
            until(lambda: world.usage.total(), "the usage process is back")
    world.expect_equal()


def test_pods_come_and_go_and_a_pod_that_leaves_in_order_hands_on_everything(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.pods.append(world.new_pod("two"))
    try:
        world.start()
        seed = random.Random(1)
        for _ in range(10):
            for pod in world.pods:
                assert world.ask(seed, pod) == 200
        leaving = world.pods.pop()
        for _ in range(20):
            assert world.ask(seed, leaving) == 200
        leaving.stop()
        world.expect_equal()
        # In its place one with the same address, and a log of its own.
        follower = world.new_pod("three")
        follower.port, follower.http_port = leaving.port, leaving.http_port
        follower._environment |= {"STOKER_GATEWAY_PORT": str(leaving.port), "STOKER_GATEWAY_HTTP_PORT": str(leaving.http_port)}  # fmt: skip
        world.pods.append(follower)
        follower.start()
        for _ in range(5):
            assert world.ask(seed, follower) == 200
        world.expect_equal()
    finally:
        world.stop()


def test_a_pod_that_is_killed_is_short_by_what_was_in_flight_and_is_never_counted_twice(short_world: World) -> None:
    world, callers = short_world, 6
    with world.load(callers):
        until(lambda: (world.counted() or (0,))[0] > 50, "calls are served and counted")
        began, before = time.monotonic(), world.told()
        until(lambda: world.told()[0] > before[0] + 50, "calls are served")
        per_second = 50 / (time.monotonic() - began)
        assert world.pod.envoy is not None
        assert world.pod.supervisor is not None
        for name in ("policy", "relay"):
            world.pod.kill(name)
        world.pod.envoy.kill()
        world.pod.supervisor.kill()
        for process in (world.pod.envoy, world.pod.supervisor):
            process.wait()
        for name in ("policy", "relay"):
            if pid := world.pod.child(name):
                os.kill(pid, signal.SIGKILL)
        after = world.told()
        shutil.rmtree(world.pod.run / "log")
    time.sleep(1.0)
    counted = world.counted()
    assert counted is not None
    assert counted[0] <= after[0] + callers
    # One flush is 50 ms, a piece is asked for every 100 ms; and the usage process may have waited for its turn.
    assert counted[0] >= after[0] - callers - 1.5 * per_second, (counted, before, after)


def test_usage_in_postgresql_survives_the_database_being_away(tmp_path: Path) -> None:
    postgres = Postgres()
    world = World(tmp_path, database_url=postgres.url)
    try:
        world.start()
        until(lambda: world.usage.total(), "the first answer")
        with world.load() as statuses:
            for _ in range(2):
                count = len(statuses)
                until(lambda count=count: len(statuses) > count + 30, "calls go on")
                postgres.stop()
                until(lambda: world.report().status == 503, "usage cannot be read")
                count = len(statuses)
                until(lambda count=count: len(statuses) > count + 30, "calls go on without")
                postgres.start()
                until(lambda: world.report().status == 200, "usage is back")
        assert set(statuses) == {200}
        world.expect_equal()
    finally:
        world.stop()
        postgres.remove()


def test_the_usage_process_lets_nobody_else_in(world: World) -> None:
    until(lambda: world.usage.total(), "it runs")
    for target in ("/usage", "/keys"):
        for headers in ({}, {"authorization": "Bearer sk-root"}):
            assert exchange(world.usage.port, "GET", target, None, headers, 5).status == 401
    assert world.pod.probe("/usage-log").status == 401
    answer: Any = world.pod.probe("/usage-log?log=x&number=1&offset=0", {"authorization": "Bearer operator-token"})
    assert answer.status == 409


def test_the_portal_reads_usage_and_nothing_else(world: World) -> None:
    until(lambda: world.usage.total(), "it runs")
    headers = {"authorization": f"Bearer {portal_token('operator-token')}"}
    assert exchange(world.usage.port, "GET", "/usage?by=user", None, headers, 5).status == 200
    assert exchange(world.usage.port, "GET", "/keys", None, headers, 5).status == 401
    assert world.pod.probe("/usage-log", headers).status == 401
