"""Public keys of the issuers: fetched by the relay, which has time to wait, and read by the policy from a file.

A set that cannot be fetched stays as it was last seen: tokens go on being checked while the issuer is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from stoker.gateway.settings import Settings
from stoker.gateway.state import KEY_SETS_FILE, write_file
from stoker.gateway.trust import Outgoing

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 300.0
SHORTEST_INTERVAL_SECONDS = 10.0
"""Between two fetches of one set, however many tokens name keys that are not in it."""
FETCH_SECONDS = 10.0
LARGEST_SET = 1 << 20


class KeySets:
    """Keeps the file of key sets as new as it has to be."""

    def __init__(
        self,
        settings: Settings,
        addresses: Callable[[], Mapping[str, str]],
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        authorities: Callable[[], str] = lambda: "",
    ) -> None:
        self._path = settings.state / KEY_SETS_FILE
        self._addresses = addresses
        self._on_change = on_change
        self._authorities = authorities
        self._clock = clock
        self._sets: dict[str, Any] = self._read()
        self._tried: dict[str, float] = {}
        self._wanted = False
        self._look = asyncio.Event()

    def look(self) -> None:
        """The configuration may have changed."""
        self._look.set()

    def refresh(self) -> None:
        """A token names a key that is in no set; perhaps a new one."""
        self._wanted = True
        self._look.set()

    async def run(self) -> None:
        """Endless."""
        outgoing = Outgoing(FETCH_SECONDS)
        while True:
            self._look.clear()
            await self.fetch_due(outgoing.client(self._authorities()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHORTEST_INTERVAL_SECONDS):
                    await self._look.wait()

    async def fetch_due(self, client: httpx.AsyncClient) -> None:
        """One round over the sets whose time has come."""
        addresses = self._addresses()
        now = self._clock()
        interval = SHORTEST_INTERVAL_SECONDS if self._wanted else REFRESH_SECONDS
        due = []
        for address in sorted(addresses):
            wait = interval if address in self._sets else SHORTEST_INTERVAL_SECONDS
            if now - self._tried.get(address, float("-inf")) >= wait:
                self._tried[address] = now
                due.append(address)
        if self._wanted and len(due) == len(addresses):
            # Otherwise one was fetched a moment ago; the wish stands until it may be fetched again.
            self._wanted = False
        fetched = await asyncio.gather(*(fetch(client, address, addresses[address]) for address in due))
        news = {address: found for address, found in zip(due, fetched, strict=True) if found is not None}
        # Before routes are known nothing is forgotten.
        sets = {address: known for address, known in self._sets.items() if address in addresses or not addresses}
        self._sets = {**sets, **news}
        content = json.dumps({"sets": self._sets}, separators=(",", ":"), sort_keys=True).encode()
        if (self._sets or self._path.exists()) and write_file(self._path, content):
            self._on_change()

    def _read(self) -> dict[str, Any]:
        try:
            sets = json.loads(self._path.read_bytes())["sets"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return sets if isinstance(sets, dict) else {}


async def fetch(client: httpx.AsyncClient, address: str, issuer: str = "") -> dict[str, Any] | None:
    """The set as its issuer shows it now; None, and a word in the log, where it does not.

    With an issuer the address is that of its discovery document, which says where the set is.
    """
    try:
        if issuer:
            return await _fetch_set(client, _keys_of(await _fetch_object(client, address), issuer, address))
        return await _fetch_set(client, address)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        logger.warning("key set %s is not taken over: %s", address, error or type(error).__name__)
        return None


async def _fetch_set(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    found = await _fetch_object(client, address)
    if isinstance(found.get("keys"), list):
        return found
    raise ValueError("it has no list of keys")


def _keys_of(document: dict[str, Any], issuer: str, address: str) -> str:
    """Where the discovery document says that the keys are. It has to name its issuer to the letter, as the standard asks: otherwise it is
    somebody else's, with somebody else's keys."""
    if document.get("issuer") != issuer:
        raise ValueError(f"it is the document of issuer {document.get('issuer')!r}, not of {issuer}")
    where = document.get("jwks_uri")
    if not isinstance(where, str) or not where.startswith(
        ("https://", "http://") if address.startswith("http://") else "https://"
    ):
        raise ValueError(f"its jwks_uri is {where!r}, not an https address")
    return where


async def _fetch_object(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    async with client.stream("GET", address, headers={"accept": "application/json"}) as response:
        response.raise_for_status()
        found = json.loads(await _read_at_most(response, LARGEST_SET))
    if not isinstance(found, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - what came is wrong, not how we handle it
    return found


async def _read_at_most(response: httpx.Response, size: int) -> bytes:
    text = b""
    async for piece in response.aiter_bytes():
        text += piece
        if len(text) > size:
            raise ValueError(f"it is larger than {size} bytes")
    return text
