"""The relay process: says what the gateway itself has to say, and keeps the gateway's files true to the cluster.

Envoy sends here what the policy has allowed but no engine shall answer: the list of models, and refusals with a 5xx, of which
ext_authz would lose the body. What to say comes in x-gw-answer, which no client can set.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import uvloop

from stoker.environment import Environment
from stoker.gateway import openai_errors as errors
from stoker.gateway.access_log import Rotation
from stoker.gateway.endpoints import Dialect, dialect_of
from stoker.gateway.held import hold_stream, wants_signs_of_life
from stoker.gateway.introspection import ASK_SECONDS, introspect
from stoker.gateway.key_sets import KeySets
from stoker.gateway.ollama import describe_tags
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.openapi import build_document
from stoker.gateway.processes import prepare_process, run_until_told
from stoker.gateway.publish import Publisher
from stoker.gateway.served import Served, follow_log
from stoker.gateway.settings import Settings
from stoker.gateway.state import StateReader
from stoker.gateway.table import Key, Model, Table
from stoker.gateway.trust import Outgoing
from stoker.gateway.usage_answer import answer_usage
from stoker.gateway.watch import follow_cluster
from stoker.gateway.web import TEXT, WebRequest, WebResponse, protocol_factory
from stoker.gateway.wire import read_problem

logger = logging.getLogger(__name__)

ROTATION_SECONDS = 5.0
PROBLEMS = {"model_stopped": errors.model_stopped}


class Answers:
    """Words the answers, from the same files the policy decides by."""

    def __init__(
        self,
        reader: StateReader,
        publisher: Publisher,
        internal: Path,
        refresh_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self.served = Served()
        self._internal = internal
        self._outgoing = Outgoing(ASK_SECONDS)
        self._reader = reader
        self._publisher = publisher
        self._refresh_keys = refresh_keys

    async def handle(self, request: WebRequest) -> WebResponse:
        """One request, decided by the policy already."""
        answer = request.headers.get("x-gw-answer", "")
        name = request.headers.get("x-gw-requested", "")
        table = self._reader.table
        if answer == "metrics":
            return WebResponse(200, self._metrics(), TEXT)
        if answer == "refresh-keys":
            self._refresh_keys()
            return WebResponse(200, b"", TEXT)
        if answer == "introspect":
            return await self._introspect(request.headers.get("x-gw-token", ""))
        if answer == "held":
            return hold_stream(request, self._internal)
        if answer == "problem":
            said = read_problem(request.headers["x-gw-problem"])
            return problem(said, dialect_of(request.target.partition("?")[0]))
        if answer in PROBLEMS:
            return problem(PROBLEMS[answer](name), dialect_of(request.target.partition("?")[0]))
        if answer == "openapi":
            return as_json(build_document())
        if answer in ("models", "tags") and table is not None:
            models = visible(table, request.headers.get("x-gw-key", ""), request.headers.get("x-gw-role", ""))
            if answer == "tags":
                return as_json(describe_tags(models))
            return as_json({"object": "list", "data": [describe(name, model) for name, model in models]})
        if answer == "usage" and table is not None:
            told = await answer_usage(table, request)
            return problem(told) if isinstance(told, ApiProblem) else told
        if answer == "model" and table is not None:
            model = table.by_name.get(name)
            return problem(errors.model_not_found(name)) if model is None else as_json(describe(name, model))
        # Nothing the policy says ends here; a request that slipped past it would, and gets nothing.
        return problem(ApiProblem(404, "unknown_url", "The gateway has no route for this request."))

    async def _introspect(self, token: str) -> WebResponse:
        """What an issuer says of a token; 502 where it says nothing."""
        table = self._reader.table
        if table is None or table.routes.introspection is None or not token:
            return WebResponse(404, b"")
        client = self._outgoing.client(table.routes.authorities)
        try:
            return as_json(await introspect(client, table.routes.introspection, token))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            logger.warning(
                "%s does not say whose a token is: %s", table.routes.introspection.url, error or type(error).__name__
            )
            return WebResponse(502, b"")

    def _metrics(self) -> bytes:
        published = self._publisher.published_at
        lines = [
            "# HELP stoker_gateway_published_timestamp_seconds When Envoy's files were last brought up to date; 0 before.",
            "# TYPE stoker_gateway_published_timestamp_seconds gauge",
            f"stoker_gateway_published_timestamp_seconds {published:.3f}",
            "# HELP stoker_gateway_relay_cpu_seconds_total CPU of the relay process.",
            "# TYPE stoker_gateway_relay_cpu_seconds_total counter",
            f"stoker_gateway_relay_cpu_seconds_total {time.process_time():.3f}",
        ]
        return "\n".join(lines).encode() + b"\n" + self.served.text()


def visible(table: Table, key_name: str, role_name: str = "") -> list[tuple[str, Model]]:
    """What a key may use, or a role of somebody with a token. Of a rotated key both hashes may be good, and both say the same."""
    if role_name:
        role = table.roles.get(role_name)
        keys: tuple[Key, ...] = (Key(key_name, b"", None, role.allowed),) if role else ()
    else:
        keys = table.keys_by_name.get(key_name, ())
    return table.visible(keys[0]) if keys else []


def describe(name: str, model: Model) -> dict[str, object]:
    """OpenAI's model object."""
    listed: dict[str, object] = {"id": name, "object": "model", "created": model.created, "owned_by": "stoker"}
    if model.sleeping:
        # Asking for it wakes it; looking at the list does not.
        listed["stoker"] = {"state": "sleeping"}
    return listed


def as_json(document: object) -> WebResponse:
    """A good answer."""
    return WebResponse(200, json.dumps(document, separators=(",", ":")).encode())


def problem(what: ApiProblem, dialect: Dialect = "openai") -> WebResponse:
    """A refusal."""
    return WebResponse(what.status, what.body_in(dialect), headers=what.headers)


async def rotate_log(settings: Settings) -> None:
    """Endless."""
    rotation = Rotation(settings.log, settings.admin_socket)
    while True:
        await asyncio.sleep(ROTATION_SECONDS)
        await rotation.look()


async def serve(settings: Settings, answer_socket: socket.socket, changes: int) -> None:
    """Answer, and follow the cluster, until told to stop."""
    reader = StateReader(settings.state)
    reader.load()

    def on_change() -> None:
        reader.load()
        # A full pipe holds changes that the policy has not seen yet; it will look once, at all of them.
        with contextlib.suppress(BlockingIOError):
            os.write(changes, b"c")

    def issuer_addresses() -> dict[str, str]:
        """And whose discovery document it is, where it is one."""
        issuers = publisher.routes.issuers if publisher.routes else ()
        return {issuer.keys_address: issuer.issuer * issuer.discovery for issuer in issuers if issuer.keys_address}

    def authorities() -> str:
        return publisher.routes.authorities if publisher.routes else ""

    key_sets = KeySets(settings, issuer_addresses, on_change, authorities=authorities)

    def on_publish() -> None:
        on_change()
        key_sets.look()

    publisher = Publisher(settings, on_publish)
    answers = Answers(reader, publisher, settings.internal_socket, key_sets.refresh)
    server = await asyncio.get_running_loop().create_unix_server(
        protocol_factory(answers.handle, wants_signs_of_life), sock=answer_socket, backlog=4096
    )
    async with server:
        await run_until_told(
            follow_cluster(settings, publisher),
            key_sets.run(),
            rotate_log(settings),
            follow_log(settings.log, answers.served),
        )


def main() -> int:
    """Entry of the process; see policy.main."""
    parser = argparse.ArgumentParser()
    for name in ("answer", "changes"):
        parser.add_argument(f"--{name}", type=int, required=True, help=f"file descriptor: {name}")
    arguments = parser.parse_args()
    prepare_process("relay")
    uvloop.run(
        serve(Settings.from_environment(Environment()), socket.socket(fileno=arguments.answer), arguments.changes)
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
