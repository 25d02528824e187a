"""Two replicas of a gateway that count together in a real Redis, and what they let in when it is gone; engine and API server are fakes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway.counting_engine import CountingEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod, free_port, until

BOUNDS = {
    "requests": {"requestsPerMinute": 60},
    "places": {"concurrentRequests": 3},
    "tokens": {"tokensPerMinute": 100},
}


class RedisServer:
    """redis-server, or valkey-server, on a free port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        assert found, "no Redis: hack/servers installs it"
        command = [found, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class World:
    def __init__(self, folder: Path) -> None:
        self.kubernetes, self.engine, self.redis = FakeKubernetes(), CountingEngine(), RedisServer()
        self.kubernetes.put_endpoints(NAMESPACE, "qwen", [self.engine.port])
        self.pods = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            self.pods.append(GatewayPod(folder / name, self.kubernetes))

    def configure(self, name: str, bounds: dict[str, int], *, redis: bool = True) -> None:
        config = Config().model("qwen").key(name, "sk-it", **bounds)
        config.more = {"replicas": 2, "redisUrl": f"redis://127.0.0.1:{self.redis.port}/0" if redis else None}
        config.apply(self.kubernetes)

    def ask(self, pod: GatewayPod, **metadata: Any) -> int:
        return pod.chat(key="sk-it", metadata=metadata).status

    def spread(self, calls: int) -> int:
        """How many of so many calls are let in, each to the other pod."""
        return [self.ask(self.pods[number % 2]) for number in range(calls)].count(200)

    def says(self, pod: GatewayPod, words: str) -> bool:
        return words in (pod.folder / "policy.log").read_text()

    def stop(self) -> None:
        for pod in self.pods:
            pod.stop()
        self.redis.stop()
        self.kubernetes.close()
        self.engine.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.stop()


def begin(world: World, name: str, bounds: dict[str, int], *, redis: bool = True) -> None:
    world.configure(name, bounds, redis=redis)
    for pod in world.pods:
        pod.start()
        if redis:
            until(lambda pod=pod: world.says(pod, "limits are counted in Redis"), "Redis is asked", within=10)


def test_two_replicas_admit_the_limit_together_however_calls_are_spread(world: World) -> None:
    begin(world, "spread", BOUNDS["requests"])
    assert 58 <= world.spread(90) <= 62
    # Not only half of it by one.
    world.configure("single", BOUNDS["requests"])
    until(lambda: world.ask(world.pods[0]) == 200, "the next key")
    admitted = 1 + [world.ask(world.pods[0]) for _ in range(80)].count(200)
    assert 58 <= admitted <= 62
    assert world.pods[1].chat(key="sk-it").status == 429
    refused = world.pods[1].chat(key="sk-it")
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-limit-requests"] == "60"


def test_calls_at_the_same_time_are_counted_together(world: World, run_together: Callable[..., list[Any]]) -> None:
    begin(world, "burst", BOUNDS["requests"])
    calls = [lambda pod=pod: world.ask(pod) for pod in world.pods for _ in range(60)]
    # On a busy machine some calls have no answer of Redis in time, and are judged by what this replica knows.
    assert 50 <= run_together(calls).count(200) <= 66


def test_places_and_tokens_are_shared_and_come_back(world: World, run_together: Callable[..., list[Any]]) -> None:
    begin(world, "places", BOUNDS["places"])

    def at_once() -> int:
        calls = [lambda pod=pod: world.ask(pod, wait=0.5) for pod in world.pods for _ in range(4)]
        return run_together(calls).count(200)

    until(lambda: at_once() == 3, "three places in all", within=15)
    until(lambda: at_once() == 3, "and again", within=15)
    world.configure("tokens", BOUNDS["tokens"])
    until(lambda: "x-ratelimit-limit-tokens" in world.pods[0].chat(key="sk-it").headers, "the next key")
    assert world.ask(world.pods[0], prompt=80, completion=15) == 200
    long = {"messages": [{"role": "user", "content": "x" * 160}]}
    until(lambda: world.pods[1].chat(key="sk-it", **long).status == 429, "the other replica knows of it", within=3)


def test_redis_stopped_in_mid_run_never_lets_more_in_than_the_limit(world: World) -> None:
    begin(world, "stopped", BOUNDS["requests"])
    admitted = world.spread(24)
    assert admitted == 24
    world.redis.stop()
    began = time.monotonic()
    later = world.spread(90)
    assert time.monotonic() - began < 30
    assert 40 <= admitted + later <= 60
    assert world.says(world.pods[0], "limits are shared without Redis")


def test_a_redis_that_hangs_holds_nobody_up(world: World) -> None:
    begin(world, "hanging", {"requestsPerMinute": 1000})
    assert world.spread(4) == 4
    world.redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert world.spread(20) == 20
    assert time.monotonic() - began < 5


def test_a_redis_that_is_back_empty_is_not_trusted_for_a_minute(world: World) -> None:
    begin(world, "back", BOUNDS["requests"])
    admitted = world.spread(24)
    world.redis.stop()
    until(lambda: all(world.says(pod, "without Redis") for pod in world.pods), "it is missed", within=10)
    world.redis.start()
    until(lambda: all(world.says(pod, "in Redis again") for pod in world.pods), "it is back", within=10)
    assert admitted + world.spread(90) <= 60


def test_without_redis_replicas_admit_their_shares(world: World) -> None:
    begin(world, "shares", BOUNDS["requests"], redis=False)
    assert world.spread(90) == 60
    world.configure("single", BOUNDS["requests"], redis=False)
    until(lambda: world.ask(world.pods[0]) == 200, "the next key")
    assert 1 + [world.ask(world.pods[0]) for _ in range(40)].count(200) == 30


def test_an_address_that_is_none_leaves_the_shares(world: World) -> None:
    config = Config().model("qwen").key("odd", "sk-it", requestsPerMinute=60)
    config.more = {"replicas": 2, "redisUrl": "http://no.redis/"}
    config.apply(world.kubernetes)
    for pod in world.pods:
        pod.start()
    assert world.spread(70) == 60
