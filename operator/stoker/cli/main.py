"""``kubectl stoker``: the commands."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from stoker import __version__
from stoker.api import ApiGateway, InferenceEngine, ModelDeployment
from stoker.api.names import client_files_name
from stoker.cli import keys
from stoker.cli.calls import ask, find_endpoint, read_usage, usage_table
from stoker.cli.output import show_table, show_text
from stoker.cli.session import ContextOption, Failed, GatewayOption, NamespaceOption, connected, run
from stoker.cli.tables import advice, engine_table, gateway_table, model_table, without_namespace
from stoker.cluster.resource_types import API_GATEWAYS, CONFIG_MAPS, INFERENCE_ENGINES, MODEL_DEPLOYMENTS

app = typer.Typer(
    help="Models, gateways and keys of Stoker, for people.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="key")

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Base URL of the gateway, ending in /v1. Default: its status.url.", show_default=False),
]


class Client(StrEnum):
    """Programs that a gateway has settings for."""

    OPENCODE = "opencode"
    CONTINUE = "continue"
    LANGCHAIN = "langchain"
    PYTHON = "python"
    CURL = "curl"


FILES = {
    Client.OPENCODE: "opencode.json",
    Client.CONTINUE: "continue.yaml",
    Client.LANGCHAIN: "langchain.py",
    Client.PYTHON: "python.py",
    Client.CURL: "curl.sh",
}
"""Keys of the ConfigMap status.clientConfigRef."""


@app.command("status")
def on_status(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Gateways, models and engines on one page, and what to do about those that are not ready."""

    async def work() -> None:
        async with connected(namespace, context) as session:
            where = None if all_namespaces else session.namespace
            (gateways, _), (models, _), (engines, _) = await asyncio.gather(
                *(session.client.list(kind, where) for kind in (API_GATEWAYS, MODEL_DEPLOYMENTS, INFERENCE_ENGINES))
            )
        read = (
            [ApiGateway.model_validate(item) for item in gateways],
            [ModelDeployment.model_validate(item) for item in models],
            [InferenceEngine.model_validate(item) for item in engines],
        )
        for table in (gateway_table(read[0]), model_table(read[1]), engine_table(read[2])):
            if table.rows:
                show_table(table if all_namespaces else without_namespace(table))
                show_text("")
        if not any(read):
            raise Failed(
                f"nothing of Stoker's is in {'this cluster' if all_namespaces else f'namespace {session.namespace}'}"
            )
        for said in advice([*read[0], *read[1], *read[2]]):
            show_text(said.name, "bold")
            show_text(f"  {said.message}")

    run(work)


@app.command("ask")
def on_ask(
    model: Annotated[str, typer.Argument(help="Served name of the model.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    gateway: GatewayOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Ask a model one question through the gateway, with STOKER_API_KEY or the gateway's admin key."""

    async def work() -> None:
        base, key = await find_endpoint(namespace, context, gateway, url)
        for piece in ask(base, key, model, prompt):
            typer.echo(piece, nl=False)
        typer.echo()

    run(work)


@app.command("usage")
def on_usage(
    by: Annotated[str, typer.Option(help="Any of day, key, user and model, with commas.")] = "model",
    since: Annotated[str | None, typer.Option("--from", help="First day, as 2026-03-01. Default: 30 days ago.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day. Default: today (UTC).")] = None,
    gateway: GatewayOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Who used how much, as STOKER_API_KEY or the gateway's admin key may see it."""

    async def work() -> None:
        base, key = await find_endpoint(namespace, context, gateway, url)
        query = {"by": by, **({"from": since} if since else {}), **({"to": until} if until else {})}
        show_table(usage_table(read_usage(base, key, query), [name for name in by.split(",") if name]))

    run(work)


@app.command("settings")
def on_settings(
    client: Annotated[Client, typer.Argument(help="The program.", show_default=False)],
    gateway: GatewayOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Print a gateway's ready settings for a client program; the key comes from STOKER_API_KEY."""

    async def work() -> None:
        async with connected(namespace, context) as session:
            found = await session.gateway(gateway)
            name = client_files_name(found.metadata.name)
            files = await session.client.get(CONFIG_MAPS, session.namespace, name)
            try:
                typer.echo((files or {})["data"][FILES[client]], nl=False)
            except (KeyError, TypeError):
                raise Failed(f"ConfigMap {name} has no {FILES[client]} yet: does the operator run?") from None

    run(work)


@app.command("version")
def on_version() -> None:
    """Print this program's version."""
    typer.echo(f"stoker {__version__}")
