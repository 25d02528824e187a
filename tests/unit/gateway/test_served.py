from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoker.gateway.access_log import CURRENT
from stoker.gateway.endings import parse_lines
from stoker.gateway.served import Served, follow_log


def line(model: str = "qwen", code: int = 200, **more: Any) -> bytes:
    said = {"x-gw-served": f"alice\t{model}\tteam-a/{model}\tuser\t\t", "x-gw-ticket": "00000000-1"}
    return json.dumps({"code": code, "said": said, "ms": 120, **more}).encode() + b"\n"


def test_requests_tokens_and_times_are_counted_by_model() -> None:
    served = Served()
    served.count(parse_lines(line(tokens={"prompt": 11, "completion": 5}, first_byte_ms=30) + line(code=503) + line("embed", tokens={"prompt": 7})))  # fmt: skip
    told = served.text().decode().splitlines()
    for expected in (
        'requests_total{model="qwen",code="200"} 1',
        'requests_total{model="qwen",code="503"} 1',
        'prompt_tokens_total{model="qwen"} 11',
        'completion_tokens_total{model="qwen"} 5',
        'prompt_tokens_total{model="embed"} 7',
        'first_byte_milliseconds_bucket{model="qwen",le="25"} 0',
        'first_byte_milliseconds_bucket{model="qwen",le="50"} 1',
        'first_byte_milliseconds_count{model="qwen"} 1',
        'duration_milliseconds_bucket{model="qwen",le="100"} 0',
        'duration_milliseconds_bucket{model="qwen",le="+Inf"} 2',
        'duration_milliseconds_sum{model="qwen"} 240',
    ):
        assert f"stoker_gateway_served_{expected}" in told
    assert not [
        one for one in told if one.startswith('stoker_gateway_served_first_byte_milliseconds_count{model="embed')
    ]


def test_of_streams_the_time_between_two_tokens_is_counted() -> None:
    served = Served()
    streamed = {"type": "text/event-stream", "first_byte_ms": 200, "tokens": {"completion": 101}}
    lines = line(ms=2200, **streamed) + line(ms=2200, **{**streamed, "type": "application/x-ndjson; charset=utf-8"})
    # Plain answers, short ones, and those of which the tokens are not known tell nothing of it.
    for less in ({"type": "application/json"}, {"tokens": {"completion": 7}}, {"tokens": {}}, {"first_byte_ms": None}):
        lines += line(ms=9000, **{**streamed, **less})
    served.count(parse_lines(lines))
    told = served.text().decode().splitlines()
    for expected in ('bucket{model="qwen",le="15"} 0', 'bucket{model="qwen",le="20"} 2', 'sum{model="qwen"} 40.0', 'count{model="qwen"} 2'):  # fmt: skip
        assert f"stoker_gateway_served_token_milliseconds_{expected}" in told


def test_a_line_that_names_no_model_and_half_a_line_are_not_counted() -> None:
    served = Served()
    served.count(parse_lines(b'{"code": 404}\n{"code": 2'))
    assert b"} " not in served.text()


def test_a_name_cannot_break_the_text() -> None:
    served = Served()
    served.count(parse_lines(line('a"b')))
    assert rb'{model="a\"b",code="200"} 1' in served.text()


async def follow(folder: Path, until: Callable[[bytes], bool]) -> bytes:
    """What is written until there is enough of it."""
    written, enough = bytearray(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(data: bytes) -> None:
        written.extend(data)
        if until(bytes(written)):
            loop.call_soon_threadsafe(enough.set)

    task = asyncio.create_task(follow_log(folder, Served(), write))
    await asyncio.wait_for(enough.wait(), 60)
    # The place is written behind the lines.
    while not (folder / "passed-on").exists() or int((folder / "passed-on").read_text().split()[1]) == 0:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return bytes(written)


def read(written: bytes) -> list[tuple[str, str]]:
    return [(line["key"], line["model"]) for line in map(json.loads, written.splitlines())]


async def test_lines_are_passed_on_once_by_the_next_process_from_where_the_last_one_was(tmp_path: Path) -> None:
    log = tmp_path / CURRENT
    log.write_bytes(line() + line("embed"))
    assert read(await follow(tmp_path, lambda text: text.count(b"\n") == 2)) == [("alice", "qwen"), ("alice", "embed")]
    with log.open("ab") as file:
        file.write(line("coder"))
    assert read(await follow(tmp_path, lambda text: b"\n" in text)) == [("alice", "coder")]


async def test_without_a_place_that_can_be_read_the_log_is_passed_on_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / CURRENT).write_bytes(line())
    (tmp_path / "passed-on").write_text("nonsense 0")
    assert read(await follow(tmp_path, lambda text: b"\n" in text)) == [("alice", "qwen")]


async def test_people_read_what_the_policy_and_the_engine_said_beside_the_rest_and_no_ticket(tmp_path: Path) -> None:
    (tmp_path / CURRENT).write_bytes(line(tokens={"prompt": 3}))
    (told,) = map(json.loads, (await follow(tmp_path, lambda text: b"\n" in text)).splitlines())
    assert told == {
        "code": 200,
        "ms": 120,
        "reason": "allowed",
        "key": "alice",
        "model": "qwen",
        "cluster": "team-a/qwen",
        "role": "user",
        "prompt": 3,
    }
