from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from unit.cluster.fake_api_server import FakeApiServer, serving, status
from unit.cluster.test_cache import obj

from stoker.api import ApiGateway
from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache
from stoker.cluster.events import EventPoster
from stoker.cluster.resource_types import API_GATEWAYS, SECRETS
from stoker.reconcile.context import Context
from stoker.reconcile.gateway_token import read_or_make_token
from stoker.reconcile.work_queue import WorkQueue

GATEWAY = ApiGateway.model_validate({**obj(API_GATEWAYS, "gateway"), "spec": {}})


def routes(token: object) -> Any:
    data = {"routes.json": base64.b64encode(json.dumps({"token": token}).encode()).decode()}
    return lambda _: {**obj(SECRETS, "gateway-routes"), "data": data}


@asynccontextmanager
async def gateway(*script: Any, known: str = "") -> AsyncIterator[tuple[FakeApiServer, Context]]:
    async with serving(*script) as (fake, client):
        context = Context(
            client, Cache(namespaces_known=True), OperatorSettings("x:1"), WorkQueue(), EventPoster(client, "x")
        )
        if known:
            context.gateway_tokens[GATEWAY.key] = known
        yield fake, context


async def test_a_restarted_operator_reads_the_token_with_fake_api_server() -> None:
    async with gateway(routes("old")) as (_, context):
        assert await read_or_make_token(context, GATEWAY) == "old"


async def test_a_known_token_is_not_read_again_with_fake_api_server() -> None:
    async with gateway(lambda _: obj(SECRETS, "gateway-routes"), known="old") as (fake, context):
        assert await read_or_make_token(context, GATEWAY) == "old"
        assert len(fake.asked) == 1


async def test_whoever_deletes_the_secret_gets_another_token_with_fake_api_server() -> None:
    async with gateway(status(404, "NotFound"), known="old") as (_, context):
        made = await read_or_make_token(context, GATEWAY)
        assert made not in ("", "old")


async def test_a_secret_that_cannot_be_understood_gets_a_new_token_with_fake_api_server() -> None:
    for broken in (routes(7), routes(""), lambda _: {**obj(SECRETS, "gateway-routes"), "data": {"routes.json": "!"}}):
        async with gateway(broken) as (_, context):
            assert len(await read_or_make_token(context, GATEWAY)) > 30
