"""Two replicas on PostgreSQL and Redis, behind what kube-proxy does: no chat hangs, and none is lost with a replica."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.conftest import World
from ports import free_port
from webui.open_webui import EMAIL, PASSWORD, SECRETS, OpenWebUI
from webui.servers import Postgres, Redis, RoundRobin

BROWSER = Path(__file__).with_name("browser.py")
CHATS = 20


@pytest.fixture(scope="module")
def replicas(
    program: Path, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RoundRobin, list[OpenWebUI]]]:
    folder, front_port = tmp_path_factory.mktemp("shared"), free_port()
    postgres, redis = Postgres(folder), Redis(folder)
    secrets = {**SECRETS, ("pg", "url"): postgres.url, ("redis", "url"): redis.url}
    ui = {
        "url": f"http://127.0.0.1:{front_port}",
        "replicas": 2,
        "databaseSecretRef": {"name": "pg"},
        "redisSecretRef": {"name": "redis"},
    }
    made = [
        OpenWebUI(program, tmp_path_factory.mktemp(f"ui{n}"), world.pod.port, secrets=secrets, spec={"webUI": ui})
        for n in range(2)
    ]
    front = RoundRobin(front_port, [replica.port for replica in made])
    try:
        # One after the other, as the StatefulSet does: each migrates the database when it starts.
        for replica in made:
            replica.start()
            replica.wait_ready()
        yield front, made
    finally:
        front.stop()
        for replica in made:
            replica.stop()
        redis.stop()
        postgres.stop()


def chats_of(replica: OpenWebUI) -> set[str]:
    answer = replica.request("GET", "/api/v1/chats/all", token=replica.sign_in())
    assert answer.status == 200, answer.body
    return {json.loads(line)["id"] for line in answer.body.splitlines()}


def test_signing_out_at_one_replica_ends_the_session_at_the_other(
    replicas: tuple[RoundRobin, list[OpenWebUI]],
) -> None:
    _, (first, second) = replicas
    token = first.add("erin@example.com", "user")
    assert second.request("GET", "/api/v1/auths/", token=token).status == 200
    first.request("POST", "/api/v1/auths/signout", token=token, headers={"Cookie": f"token={token}"})
    assert second.request("GET", "/api/v1/auths/", token=token).status == 401


def test_twenty_chats_hang_nowhere_and_none_is_lost_with_a_replica(
    replicas: tuple[RoundRobin, list[OpenWebUI]], chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    front, (first, second) = replicas
    url = f"http://127.0.0.1:{front.port}"
    command = [sys.executable, BROWSER, chromium, url, EMAIL, PASSWORD, "Count for me", "0 1 2 3 4", tmp_path, CHATS]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert done.stdout.count("answer: 0 1 2 3 4") == CHATS
    assert all(front.served.values()), "both replicas had their share"
    chats = chats_of(second)
    assert len(chats) == CHATS
    assert first.process
    first.process.kill()
    assert chats_of(second) == chats
