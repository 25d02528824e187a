from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from stoker.gateway.access_log import CURRENT, LogReader
from stoker.gateway.endings import follow_endings, parse_gauges, parse_lines


def test_a_half_written_line_is_left_out() -> None:
    assert list(parse_lines(b'{"a": 1}\n{"b": \n[]\n{"c": 2}\n')) == [{"a": 1}, {"c": 2}]


async def test_every_request_that_ends_is_told_once(tmp_path: Path) -> None:
    log = tmp_path / CURRENT
    log.write_text('{"n": 0}\n')
    told: list[Any] = []
    enough = asyncio.Event()

    def tell(lines: bytes) -> None:
        told.extend(line["n"] for line in parse_lines(lines))
        if len(told) == 3:
            enough.set()

    task = asyncio.create_task(
        follow_endings(LogReader.at_end(tmp_path), tell, lambda: True, lambda: False, asyncio.Event())
    )
    with log.open("a") as file:
        file.write('{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n"')
    await asyncio.wait_for(enough.wait(), 60)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert told == [1, 2, 3]


def test_running_requests_failed_connections_and_answers_are_read_by_address() -> None:
    text = b"""policy::default_priority::max_connections::100000
policy::/run/stoker/policy.sock::rq_active::1
engines::observability_name::team-a/qwen
engines::10.0.0.1:8080::cx_active::9
engines::10.0.0.1:8080::rq_active::4
engines::[fd00::1]:8080::rq_active::2
engines::10.0.0.2:8080::rq_active::0
"""
    text += b"team-a/qwen::10.0.0.1:8080::rq_active::1\n"
    text += b"engines::10.0.0.2:8080::cx_connect_fail::3\nengines::10.0.0.1:8080::rq_success::7\n"
    gauges = parse_gauges(text)
    assert gauges.active == {"/run/stoker/policy.sock": 1, "10.0.0.1:8080": 5, "[fd00::1]:8080": 2}
    assert (gauges.failed, gauges.answered) == ({"10.0.0.2:8080": 3}, {"10.0.0.1:8080": 7})


def test_what_the_policy_said_and_the_tokens_stand_beside_the_rest_of_a_line() -> None:
    line = b'{"code": 200, "said": {"x-gw-model": "qwen", "x-gw-key": "alice"}, "tokens": {"prompt": 3}}'
    assert list(parse_lines(line)) == [{"code": 200, "model": "qwen", "key": "alice", "prompt": 3}]
    assert list(parse_lines(b'{"code": 400, "said": null}')) == [{"code": 400}]
