from __future__ import annotations

import asyncio
import json
from pathlib import Path

from unit.gateway.conftest import routes

from stoker.gateway.config import parse_routes
from stoker.gateway.introspection import FOR_KNOWN, MOST_AT_A_TIME, MOST_IN_A_SECOND, Inquiries
from stoker.gateway.settings import Settings
from stoker.gateway.table import build_table

ASKED = {
    "url": "https://idp.example.com/introspect",
    "clientId": "gateway",
    "clientSecret": "x",
    "defaultRole": "reader",
}
ACTIVE = json.dumps({"active": True, "sub": "alice", "exp": 9_999_999_999}).encode()


async def test_strangers_do_not_use_up_the_questions_of_those_who_are_known(tmp_path: Path) -> None:
    """The relay is a fake: it answers for one token, and about all others it says nothing for as long as the test runs."""
    table = build_table(parse_routes(routes(introspection=ASKED, roles=[{"name": "reader", "models": ["*"]}])), ())
    settings, over = Settings("team-a", "gateway", folder=tmp_path), asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"x-gw-token: alice" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ACTIVE), ACTIVE))
        else:
            await over.wait()
        writer.close()

    async with await asyncio.start_unix_server(relay, str(settings.answer_socket)):
        now = 1000.0
        inquiries = Inquiries(settings, lambda: now)

        async def ask_for_alice() -> bool:
            told = asyncio.Event()
            asked = inquiries.ask(table, "alice", told.set)
            if asked:
                await asyncio.wait_for(told.wait(), 5)
            return asked

        assert await ask_for_alice()
        answered = asyncio.Queue[None]()
        asked = [inquiries.ask(table, f"stranger {n}", lambda: answered.put_nowait(None)) for n in range(100)]
        assert sum(asked) == MOST_AT_A_TIME * (1 - FOR_KNOWN)
        assert await ask_for_alice()
        over.set()
        for _ in range(sum(asked)):
            await asyncio.wait_for(answered.get(), 5)
        now += 1
        for _ in range(MOST_IN_A_SECOND):
            assert await ask_for_alice()
        assert not await ask_for_alice(), "not without end, either"
        now += 1
        for _ in range(int(MOST_IN_A_SECOND * (1 - FOR_KNOWN)) + 1):
            assert await ask_for_alice()
        assert not inquiries.ask(table, "another stranger", lambda: None)
        assert await ask_for_alice()
