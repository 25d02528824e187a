"""Tokens that say nothing by themselves: whose they are is asked of their issuer (RFC 7662).

The policy may not wait for anybody, so the relay asks, and the request gets its answer later. What was found out is kept for a
minute at most, for a token can be taken back; of a token that is nobody's, for a few seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx

from stoker.gateway import admin
from stoker.gateway import openai_errors as errors
from stoker.gateway.admin import NotAnswering
from stoker.gateway.callers import remember_identity
from stoker.gateway.issuers import Introspection
from stoker.gateway.settings import Settings
from stoker.gateway.table import Table

logger = logging.getLogger(__name__)

KEPT_SECONDS = 60.0
STRANGER_SECONDS = 5.0
STRANGERS = 10_000
ASK_SECONDS = 5.0
MOST_AT_A_TIME = 16
MOST_IN_A_SECOND = 50
"""Of questions: strangers may make up tokens faster than an identity provider likes to be asked."""
FOR_KNOWN = 0.25
"""The share of both that is kept for tokens that were good before, so that strangers do not use up what those need each minute."""
KNOWN = 10_000
LARGEST_ANSWER = 1 << 18


class Inquiries:
    """In the policy: one question for each token, however many requests bring it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = settings.answer_socket
        self._clock = clock
        self._running: dict[bytes, list[Callable[[], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._second, self._asked = 0, 0
        self._known: dict[bytes, None] = {}
        """Tokens that have been good, by their SHA-256."""

    def ask(self, table: Table, token: str, settled: Callable[[], None]) -> bool:
        """Calls `settled` when the table knows the token, or knows it for a stranger's. False when too much is being asked."""
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        if digest in self._running:
            self._running[digest].append(settled)
            return True
        second = int(self._clock())
        if second != self._second:
            self._second, self._asked = second, 0
        share = 1.0 if digest in self._known else 1.0 - FOR_KNOWN
        if len(self._running) >= MOST_AT_A_TIME * share or self._asked >= MOST_IN_A_SECOND * share:
            return False
        self._asked += 1
        self._running[digest] = [settled]
        task = asyncio.get_running_loop().create_task(self._ask(table, token, digest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _ask(self, table: Table, token: str, digest: bytes) -> None:
        try:
            status, text = await admin.call(
                self._socket,
                "GET",
                "/",
                headers=f"x-gw-answer: introspect\r\nx-gw-token: {token}\r\n",
                seconds=ASK_SECONDS + 1,
            )
            claims = json.loads(text) if status == 200 else None
            if status == 200:
                take_over(table, digest, claims, time.time())
                self._note(table, digest)
            else:
                set_stranger(table, digest, errors.token_unchecked(), time.time())
        except (NotAnswering, ValueError) as error:
            logger.warning("a token cannot be asked about: %s", error)
            set_stranger(table, digest, errors.token_unchecked(), time.time())
        finally:
            for settled in self._running.pop(digest):
                settled()

    def _note(self, table: Table, digest: bytes) -> None:
        if digest not in table.identities:
            self._known.pop(digest, None)
            return
        if len(self._known) >= KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = None


def take_over(table: Table, digest: bytes, claims: Any, now: float) -> None:
    """What the issuer said of a token: whose it is, or nobody's."""
    from stoker.gateway.tokens import BadToken, identify

    if table.routes.introspection is None or not isinstance(claims, dict) or claims.get("active") is not True:
        set_stranger(table, digest, errors.wrong_key(), now)
        return
    try:
        identity = identify(table.routes.introspection.issuer, {**claims, "exp": claims.get("exp", now)}, now)
    except BadToken as error:
        set_stranger(table, digest, errors.wrong_token(str(error)), now)
        return
    found = remember_identity(table, identity, digest, min(identity.expires_at, now + KEPT_SECONDS))
    if isinstance(found, errors.ApiProblem):
        set_stranger(table, digest, found, now)


def set_stranger(table: Table, digest: bytes, problem: errors.ApiProblem, now: float) -> None:
    """Not let in, and not asked about again for a while."""
    if len(table.strangers) >= STRANGERS:
        table.strangers.clear()
    table.strangers[digest] = (now + STRANGER_SECONDS, problem)


async def introspect(client: httpx.AsyncClient, at: Introspection, token: str) -> Any:
    """In the relay: what the issuer says of a token; httpx.HTTPError or ValueError where it says nothing of use."""
    response = await client.post(
        at.url,
        data={"token": token, "token_type_hint": "access_token"},
        auth=(at.client_id, at.client_secret),
        headers={"accept": "application/json"},
    )
    response.raise_for_status()
    if len(response.content) > LARGEST_ANSWER:
        raise ValueError("its answer is too large")
    return response.json()
