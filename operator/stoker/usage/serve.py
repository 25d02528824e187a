"""The HTTP port of the usage process: the gateway asks for callers, the operator for keys, kubelet and Prometheus for health.

All but the probes need the gateway's bearer token; for usage the portal's does, too, which shows people theirs. Whose usage is told, the gateway says in headers: x-stoker-caller, x-stoker-key,
or neither for everybody's.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from aiohttp import web

from stoker.gateway.openai_errors import SERVER_ERROR, ApiProblem
from stoker.portal_token import portal_token
from stoker.usage.collect import Collector, Thread, today
from stoker.usage.query import COLUMNS, MOST_ROWS, BadQuery, as_csv, as_json, parse_query
from stoker.usage.store import StoreUnavailable

STORE_AWAY = ApiProblem(
    503,
    "usage_unavailable",
    "The database of usage does not answer at the moment; what is used is counted later. Try again shortly.",
    SERVER_ERROR,
    headers=(("retry-after", "10"),),
)


class Server:
    """Answers."""

    def __init__(self, thread: Thread, collector: Collector, token: Callable[[], str]) -> None:
        self._thread = thread
        self._collector = collector
        self._token = token
        self.app = web.Application()
        for path, handler in (
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            ("/usage", self._usage),
            ("/keys", self._keys),
        ):
            self.app.router.add_get(path, handler)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        # Asked for, and not only remembered: with nobody using a gateway its database may be away for long unnoticed.
        try:
            await self._thread.call(self._thread.store.place, "")
        except StoreUnavailable as error:
            return web.Response(status=503, text=f"the database does not answer: {error}\n")
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        lines = [
            "# HELP stoker_usage_store_up Whether the database answered last.",
            "# TYPE stoker_usage_store_up gauge",
            f"stoker_usage_store_up {int(not self._thread.failing)}",
            "# HELP stoker_usage_pod_silent_seconds Since a gateway pod answered last.",
            "# TYPE stoker_usage_pod_silent_seconds gauge",
            *(
                f'stoker_usage_pod_silent_seconds{{pod="{address}"}} {now - at:.1f}'
                for address, at in self._collector.answered_at.items()
            ),
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _usage(self, request: web.Request) -> web.Response:
        if not (self._may_ask(request) or _is(request, portal_token(self._token()))):
            return web.Response(status=401, text="the gateway's bearer token is needed\n")
        said = request.headers
        try:
            query = parse_query(
                request.query_string, today(), caller=said.get("x-stoker-caller", ""), key=said.get("x-stoker-key", "")
            )
            columns = [COLUMNS[name] for name in query.by]
            rows = await self._thread.call(
                self._thread.store.daily,
                columns,
                query.since.isoformat(),
                query.until.isoformat(),
                query.equal,
                MOST_ROWS + 1,
            )
        except BadQuery as bad:
            return _problem(bad.problem)
        except StoreUnavailable:
            return _problem(STORE_AWAY)
        if query.csv:
            return web.Response(text=as_csv(query, rows), content_type="text/csv", charset="utf-8")
        return web.json_response(as_json(query, rows))

    async def _keys(self, request: web.Request) -> web.Response:
        if not self._may_ask(request):
            return web.Response(status=401, text="the gateway's bearer token is needed\n")
        try:
            return web.json_response({"keys": await self._thread.call(self._thread.store.keys)})
        except StoreUnavailable:
            return _problem(STORE_AWAY)

    def _may_ask(self, request: web.Request) -> bool:
        return _is(request, self._token())


def _is(request: web.Request, wanted: str) -> bool:
    sent = request.headers.get("authorization", "")
    return bool(wanted) and hmac.compare_digest(sent.encode(), f"Bearer {wanted}".encode())


def _problem(problem: ApiProblem) -> web.Response:
    return web.Response(
        status=problem.status, body=problem.body, content_type="application/json", headers=dict(problem.headers)
    )
