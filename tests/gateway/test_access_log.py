"""The access log's files, as real Envoy writes and the relay rotates them; the API server and the engines are fakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.conftest import World
from gateway.pod import GatewayPod, until

from stoker.gateway.access_log import LogReader, Rotation
from stoker.gateway.endings import parse_lines


def reader(pod: GatewayPod) -> LogReader:
    return LogReader.at_end(pod.run / "log")


def read_lines(reader: LogReader, ids: str, count: int) -> list[dict[str, Any]]:
    """Lines of requests whose id begins like this; others end late, too."""
    lines: list[dict[str, Any]] = []

    def enough() -> bool:
        read = parse_lines(reader.read())
        lines.extend(line for line in read if line["request_id"].startswith(ids))
        return len(lines) >= count

    until(enough, f"{count} lines in the log")
    return lines


def test_every_request_that_reached_an_engine_is_in_the_log_and_nothing_else(world: World) -> None:
    log = reader(world.pod)
    for number, (model, key) in enumerate([("qwen", "sk-alice"), ("qwen", "sk-wrong"), ("nope", "sk-alice"), ("loading", "sk-alice")]):  # fmt: skip
        body = {"model": model, "messages": []}
        world.pod.request("POST", "/v1/chat/completions", body, key, headers={"x-request-id": f"file-{number}"})
    world.pod.request("GET", "/v1/models")
    body = {"model": "embed", "input": "x"}
    world.pod.request("POST", "/v1/embeddings", body, "sk-bob", headers={"x-request-id": "file-last"})
    first, second = read_lines(log, "file-", 2)
    assert (first["request_id"], first["key"], first["model"], first["cluster"]) == ("file-0", "alice", "qwen", "team-a/qwen")  # fmt: skip
    assert (second["key"], second["model"], second["code"], second["reason"]) == ("bob", "embed", 200, "allowed")


async def test_rotation_under_load_loses_no_line(
    world: World, run_together: Callable[[list[Callable[[], Any]]], list[Any]]
) -> None:
    pod = world.pod
    log = reader(pod)
    rotation = Rotation(pod.run / "log", pod.run / "admin.sock", rotate_from=1)
    before = log.number
    for round_ in range(5):
        ids = [f"rotate-{round_}-{number}" for number in range(40)]
        calls = [lambda name=name: pod.chat_with({"x-request-id": name}) for name in ids]
        assert {answer.status for answer in run_together(calls)} == {200}
        await rotation.look()
    expected = {f"rotate-{round_}-{number}" for round_ in range(5) for number in range(40)}
    lines = read_lines(log, "rotate-", len(expected))
    assert sorted(line["request_id"] for line in lines) == sorted(expected)
    # What Envoy has not written yet keeps a file from being large enough, so not every look rotates; now everything is written.
    await rotation.look()
    until(lambda: log.read() is not None and log.number > before, "another file")
