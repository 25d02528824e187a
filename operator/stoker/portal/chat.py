"""Sign-in by the session of the web chat, which browsers send along where chat and portal share a host name.

Open WebUI itself is asked whose session it is, at each request (answers are kept for some seconds): so who signs out there, or is put out, is out here, too.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from stoker.claims import known_as
from stoker.portal.config import PortalConfig

COOKIE = "token"
"""In which Open WebUI keeps its session."""
FRESH_SECONDS = 10.0
MOST_KNOWN = 1000
LONGEST_TOKEN = 4096
TIMEOUT_SECONDS = 5.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What the web chat says of a session; empty of none."""

    user: str = ""
    role: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatPerson:
    """Who is signed in to the web chat, with the role that he has at the gateway."""

    user: str
    role: str


class Chat:
    """Asks the web chat."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._known: OrderedDict[bytes, tuple[float, Session]] = OrderedDict()

    async def person(self, config: PortalConfig, cookies: Mapping[str, str]) -> ChatPerson | None:
        """Whose session it is; None for nobody's, for somebody without a role, and where the web chat does not answer."""
        token = cookies.get(COOKIE, "")
        if not config.chat_address or not token or len(token) > LONGEST_TOKEN:
            return None
        said = await self._whose(config.chat_address, token)
        if said is None:
            return None
        # Its other roles are for people who wait to be let in. What names him or a group of his comes before what he is there, as when he
        # chats, also for its admins.
        named = config.role(said.role) if said.role in ("admin", "user") else None
        role = named and (config.role_of(said.user, said.groups) or named)
        return ChatPerson(said.user, role.name) if said.user and role else None

    async def _whose(self, address: str, token: str) -> Session | None:
        digest = hashlib.sha256(f"{address} {token}".encode()).digest()
        now = time.monotonic()
        if (found := self._known.get(digest)) and now - found[0] < FRESH_SECONDS:
            return found[1]
        said = await self._ask(address, token)
        if said is None:
            return None
        self._known[digest] = (now, said)
        self._known.move_to_end(digest)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return said

    async def _ask(self, address: str, token: str) -> Session | None:
        """Empty for nobody's session; None without an answer, which is not kept."""
        try:
            # Asked directly: a proxy from the environment could not reach a Service.
            client = httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT_SECONDS, trust_env=False)
            async with client:
                client.headers["Authorization"] = f"Bearer {token}"
                answer = await client.get(f"{address}/api/v1/auths/", follow_redirects=False)
                if answer.status_code in (401, 403):
                    return Session()
                said = answer.raise_for_status().json()
                user, role = known_as(str(said["email"])), str(said["role"])
                if role not in ("admin", "user"):
                    # It tells newcomers nothing.
                    return Session(user, role)
                # His own, also for an admin, and those above them: what goes with his calls to the gateway.
                groups = (
                    await client.get(f"{address}/api/v1/users/groups?include_inherited=true", follow_redirects=False)
                ).raise_for_status()
            return Session(user, role, tuple(str(group["name"]) for group in groups.json()))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, UnicodeError) as error:
            logger.warning("the web chat does not say whose session it is: %s: %s", type(error).__name__, error)
            return None
