"""What goes through a gateway: a question to a model, and usage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from stoker.cli.session import Failed, connected
from stoker.cli.tables import Table

KEY_VARIABLE = "STOKER_API_KEY"
CONNECT_SECONDS = 5.0
# A sleeping model may load for as long as spec.coldStart.maxWaitSeconds allows, an hour at most.
ANSWER_SECONDS = 3660.0


async def find_endpoint(
    namespace: str | None, context: str | None, gateway: str | None, url: str | None
) -> tuple[str, str]:
    """Base URL and key: what was given, else the gateway's own address and its admin's key."""
    async with connected(namespace, context) as session:
        found = await session.gateway(gateway)
        base = url or found.status.url
        if not base:
            name = found.metadata.name
            raise Failed(f"ApiGateway {name} has no address yet: kubectl describe apigateway {name}")
        return base.rstrip("/"), os.environ.get(KEY_VARIABLE) or await session.admin_key(found)


def ask(base: str, key: str, model: str, prompt: str) -> Iterator[str]:
    """The answer, piece by piece."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    with _client(base, key) as client, _reaching(base), client.stream("POST", "chat/completions", json=body) as answer:
        if answer.status_code != 200:
            answer.read()
            raise Failed(refusal(answer))
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise Failed(str(event["error"].get("message", event["error"])))
                delta = (event.get("choices") or [{}])[0].get("delta") or {}
                yield delta.get("content") or delta.get("reasoning_content") or ""


def read_usage(base: str, key: str, query: dict[str, str]) -> dict[str, Any]:
    """What GET /v1/usage tells."""
    with _client(base, key) as client, _reaching(base):
        answer = client.get("usage", params=query)
        if answer.status_code != 200:
            raise Failed(refusal(answer))
        said: dict[str, Any] = answer.json()
        return said


def usage_table(said: dict[str, Any], by: list[str]) -> Table:
    """One row for each group, and the sum."""
    counts = ("requests", "failed_requests", "prompt_tokens", "completion_tokens", "cached_tokens")
    titles = tuple(name.upper().replace("_", " ") for name in (*by, *counts))
    rows = [tuple(str(row.get(name, "")) for name in (*by, *counts)) for row in said["data"]]
    total = tuple(str(said["total"].get(name, "")) for name in counts)
    if by:
        rows.append(("total", *("" for _ in by[1:]), *total))
    return Table(titles, tuple(rows))


def refusal(answer: httpx.Response) -> str:
    """The gateway's own words."""
    try:
        return f"{answer.status_code}: {answer.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}: {answer.text[:200] or answer.reason_phrase}"


def _client(base: str, key: str) -> httpx.Client:
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return httpx.Client(base_url=base + "/", headers={"Authorization": f"Bearer {key}"}, timeout=timeout)


@contextmanager
def _reaching(base: str) -> Iterator[None]:
    """Advice where the gateway cannot be reached from here: an address inside the cluster is the usual cause."""
    try:
        yield
    except httpx.TransportError as error:
        raise Failed(
            f"{base} cannot be reached from here ({error or type(error).__name__}); try: kubectl port-forward svc/GATEWAY "
            "8080:80, then add --url http://127.0.0.1:8080/v1"
        ) from error
