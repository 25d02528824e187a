from __future__ import annotations

import asyncio
from pathlib import Path

from unit.gateway.conftest import routes

from stoker.gateway.access_log import CURRENT, rotated_path
from stoker.gateway.config import parse_routes
from stoker.gateway.state import StateReader
from stoker.gateway.table import build_table
from stoker.gateway.usage_log import UsageLog, log_id
from stoker.gateway.web import WebRequest, WebResponse


def usage_log(folder: Path) -> UsageLog:
    reader = StateReader(folder)
    reader.table = build_table(parse_routes(routes(token="t")), ())
    return UsageLog(folder, reader)


async def ask(log: UsageLog, query: str = "", token: str = "t") -> WebResponse:
    return await log.handle(WebRequest("GET", f"/usage-log{query}", {"authorization": f"Bearer {token}"}))


async def test_only_who_has_the_token_of_the_configuration_may_ask(tmp_path: Path) -> None:
    assert (await ask(usage_log(tmp_path), token="other")).status == 401
    assert (await UsageLog(tmp_path, StateReader(tmp_path)).handle(WebRequest("GET", "/usage-log", {}))).status == 401


async def test_lines_are_handed_on_from_a_place_and_with_the_next_place(tmp_path: Path) -> None:
    log = usage_log(tmp_path)
    name = dict((await ask(log)).headers)["x-stoker-log"]
    assert name == log_id(tmp_path)
    assert (await ask(log, "?log=other&number=1&offset=0")).status == 409
    assert (await ask(log, f"?log={name}&number=x")).status == 400
    (tmp_path / CURRENT).write_bytes(b"one\ntwo\nhal")
    first = await ask(log, f"?log={name}&number=1&offset=0")
    assert (first.body, dict(first.headers)["x-stoker-next"]) == (b"one\ntwo\n", "1:8")
    (tmp_path / CURRENT).rename(rotated_path(tmp_path, 1))
    (tmp_path / CURRENT).write_bytes(b"three\n")
    later = await ask(log, f"?log={name}&number=1&offset=8")
    assert (later.body, dict(later.headers)["x-stoker-next"]) == (b"three\n", "2:6")


async def test_who_waits_is_answered_when_there_is_something(tmp_path: Path) -> None:
    log = usage_log(tmp_path)
    waiting = asyncio.create_task(ask(log, f"?log={log_id(tmp_path)}&number=1&offset=0&wait=10"))
    await asyncio.sleep(0)
    (tmp_path / CURRENT).write_bytes(b"one\n")
    assert (await asyncio.wait_for(waiting, 60)).body == b"one\n"


async def test_the_end_of_a_pod_waits_for_a_reader_who_was_here_and_for_nobody_else(tmp_path: Path) -> None:
    log = usage_log(tmp_path)
    (tmp_path / CURRENT).write_bytes(b"one\n")
    await asyncio.wait_for(log.handed_on(60), 60)
    name = log_id(tmp_path)
    await ask(log, f"?log={name}&number=1&offset=0")
    ending = asyncio.create_task(log.handed_on(60))
    await asyncio.sleep(0.1)
    assert not ending.done()
    await ask(log, f"?log={name}&number=1&offset=4")
    await asyncio.wait_for(ending, 60)
