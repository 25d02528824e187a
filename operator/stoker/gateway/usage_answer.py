"""GET /v1/usage: asked of the gateway's usage process, for the caller or, for admins, for everybody."""

from __future__ import annotations

import logging

import aiohttp

from stoker.gateway.openai_errors import SERVER_ERROR, ApiProblem
from stoker.gateway.table import Table
from stoker.gateway.web import JSON, WebRequest, WebResponse

logger = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=3.0)
ADMIN = "admin"
DISABLED = ApiProblem(404, "usage_disabled", "This gateway does not keep usage (spec.usage.enabled of the ApiGateway).")
UNAVAILABLE = ApiProblem(
    503,
    "usage_unavailable",
    "Usage cannot be read at the moment; what is used is counted nevertheless. Try again shortly; the condition "
    "UsageReady of the ApiGateway says what is the matter.",
    SERVER_ERROR,
    headers=(("retry-after", "10"),),
)


async def answer_usage(table: Table, request: WebRequest) -> WebResponse | ApiProblem:
    """The usage process's own answer; whose usage it tells is the policy's word, never the query's."""
    if not table.routes.usage_url:
        return DISABLED
    said = request.headers
    headers = {"authorization": f"Bearer {table.routes.token}"}
    if said.get("x-gw-role") != ADMIN:
        # A token's user is his caller; of a key all that was done with it, for whichever user of a service.
        name = "x-stoker-caller" if said.get("x-gw-caller") else "x-stoker-key"
        headers[name] = said.get("x-gw-caller") or said.get("x-gw-key", "")
    _, mark, query = request.target.partition("?")
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            async with http.get(f"{table.routes.usage_url}/usage{mark}{query}", headers=headers) as found:
                body = await found.read()
                return WebResponse(found.status, body, found.headers.get("content-type", JSON))
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        logger.warning("usage: %s: %s", type(error).__name__, error)
        return UNAVAILABLE
