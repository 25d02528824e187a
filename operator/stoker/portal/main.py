"""``stoker portal``: serve the pages, and follow what the operator tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import uvloop
from aiohttp import web

from stoker.cluster.client import KubeClient
from stoker.environment import Environment
from stoker.portal.application import build_site
from stoker.portal.directory import Directory
from stoker.portal.load import Gateways, follow_load
from stoker.portal.oidc import IdentityProvider
from stoker.portal.rendering import LOAD
from stoker.portal.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 5.0


def build(settings: Settings, client: KubeClient) -> web.Application:
    """The site, with what runs beside it."""
    directory = Directory(client, settings)
    site = build_site(settings, directory, IdentityProvider(settings.oidc_client_secret))

    async def beside(_: web.Application) -> AsyncIterator[None]:
        gateways = Gateways(settings.gateway_pods, settings.read_token)
        tasks = [
            asyncio.create_task(directory.follow()),
            asyncio.create_task(follow_load(site[LOAD], gateways, directory.models)),
        ]
        yield
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await client.close()

    site.cleanup_ctx.append(beside)
    return site


def main() -> int:
    """Entry of the role."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Paths and queries of the callback carry codes; what people do is logged by the directory.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    settings = Settings.from_environment(Environment())
    loop = uvloop.new_event_loop()

    async def connect() -> web.Application:
        return build(settings, await KubeClient.connect())

    web.run_app(connect(), port=settings.port, loop=loop, shutdown_timeout=SHUTDOWN_SECONDS, print=None)
    return 0
