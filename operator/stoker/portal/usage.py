"""What was used, asked of the gateway's usage process; whose usage a page may show is decided by the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import httpx

TIMEOUT_SECONDS = 5.0
logger = logging.getLogger(__name__)


class UsageUnavailable(Exception):
    """There are no numbers; the message says why, for whoever looks at the page."""


@dataclass(frozen=True)
class Used:
    """A sum."""

    day: str = ""
    key: str = ""
    user: str = ""
    model: str = ""
    requests: int = 0
    failed: int = 0
    prompt: int = 0
    completion: int = 0
    estimated: int = 0

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.prompt + self.completion


class UsageReader:
    """Connections to the usage process."""

    def __init__(self, url: str, token: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._token = token
        self._transport = transport

    async def read(self, by: str, since: date, until: date, only: Mapping[str, str]) -> list[Used]:
        """Sums by `day`, `key`, `user`, `model` or several with commas; only what is one person's, key's or model's."""
        if not self._url:
            raise UsageUnavailable("This gateway keeps no usage (spec.usage.enabled of the ApiGateway).")
        query = {"by": by, "from": since.isoformat(), "to": until.isoformat(), **only}
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            # Asked directly: a proxy from the environment could not reach a Service.
            client = httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT_SECONDS, trust_env=False)
            async with client:
                answer = await client.get(f"{self._url}/usage", params=query, headers=headers)
            answer.raise_for_status()
            return [_used(row) for row in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            logger.warning("usage: %s: %s", type(error).__name__, error)
            raise UsageUnavailable(
                "The numbers cannot be read at the moment; what is used is counted nevertheless. Try again shortly."
            ) from error


def _used(row: Mapping[str, object]) -> Used:
    day, key, user, model = (str(row.get(name, "")) for name in ("day", "key", "user", "model"))
    requests, failed, prompt, completion, estimated = (int(str(row[name])) for name in _NUMBERS)
    return Used(day, key, user, model, requests, failed, prompt, completion, estimated)


_NUMBERS = ("requests", "failed_requests", "prompt_tokens", "completion_tokens", "estimated_requests")
