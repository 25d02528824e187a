"""``kubectl stoker key …``: keys are made here, and only their hashes go to the cluster."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from stoker.api import ApiKey
from stoker.api.base import API_VERSION, Condition
from stoker.api.names import KEY_PREFIX_ANNOTATION, ROTATE_ANNOTATION
from stoker.cli.output import show_table
from stoker.cli.session import (
    ContextOption,
    Failed,
    GatewayOption,
    NamespaceOption,
    Session,
    connected,
    note,
    run,
)
from stoker.cli.tables import key_table, without_namespace
from stoker.cluster.errors import ApiError
from stoker.cluster.resource_types import API_KEYS, Object
from stoker.desired.api_key import KEY_BYTES, build_key, build_replacement, expiry, hash_key, key_prefix, secret_name

app = typer.Typer(help="API keys: make, list, show, rotate, suspend, resume, revoke.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Name of the ApiKey.", show_default=False)]
OPERATOR_SECONDS = 15.0
"""How long the operator may take to act on an object before somebody should look after it."""


@app.command("create")
def on_create(
    name: Annotated[str, typer.Argument(help="Name of the new ApiKey.", show_default=False)],
    gateway: GatewayOption = None,
    owner: Annotated[str | None, typer.Option(help="Whose it is, such as alice@example.com.")] = None,
    role: Annotated[
        str | None, typer.Option(help="A role of the gateway. Default: none, only the key's own bounds.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model it may use, by name or pattern; more than once. Default: all."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lasts: 12h, 30d, 8w. Default: for ever.")] = None,
    requests: Annotated[int | None, typer.Option("--requests-per-minute", min=1)] = None,
    tokens: Annotated[int | None, typer.Option("--tokens-per-minute", min=1)] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""

    async def work() -> None:
        async with connected(namespace, context) as session:
            opened = await session.gateway(gateway)
            key = build_key(secrets.token_bytes(KEY_BYTES))
            limits = {"requestsPerMinute": requests, "tokensPerMinute": tokens}
            spec: Object = {
                "gatewayRef": {"name": opened.metadata.name},
                "sha256": hash_key(key),
                "owner": owner,
                "role": role,
                "models": models or None,
                "limits": {field: value for field, value in limits.items() if value is not None} or None,
                "expiresAt": expiry(datetime.now(UTC), parse_span(expires)) if expires else None,
            }
            metadata = {
                "name": name,
                "namespace": session.namespace,
                "annotations": {KEY_PREFIX_ANNOTATION: key_prefix(key)},
            }
            given = {field: value for field, value in spec.items() if value is not None}
            try:
                await session.client.create(
                    API_KEYS, {"apiVersion": API_VERSION, "kind": API_KEYS.kind, "metadata": metadata, "spec": given}
                )
            except ApiError as error:
                if error.status != 409:
                    raise
                raise Failed(
                    f"there is an ApiKey {name} already: choose another name, or: kubectl stoker key rotate {name}"
                ) from error
            # Printed before anything else may fail: nobody can read it again.
            typer.echo(key)
            await _tell_whether_let_in(session, name)

    run(work)


@app.command("list")
def on_list(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Keys with their owners, their state and what they have used."""

    async def work() -> None:
        async with connected(namespace, context) as session:
            items, _ = await session.client.list(API_KEYS, None if all_namespaces else session.namespace)
            table = key_table((ApiKey.model_validate(item) for item in items), datetime.now(UTC))
            show_table(table if all_namespaces else without_namespace(table))

    run(work)


@app.command("show")
def on_show(name: NameArgument, namespace: NamespaceOption = None, context: ContextOption = None) -> None:
    """Print a key that is kept in a Secret."""

    async def work() -> None:
        async with _key(name, namespace, context) as (session, key):
            if key.spec.sha256 is not None:
                raise Failed(
                    f"of key {name} only the hash is kept; to have a new one: kubectl stoker key rotate {name}"
                )
            typer.echo(await session.secret_key(secret_name(key)))

    run(work)


@app.command("rotate")
def on_rotate(name: NameArgument, namespace: NamespaceOption = None, context: ContextOption = None) -> None:
    """Make a new key in place of the old one and print it; one from a Secret goes on for ten minutes."""

    async def work() -> None:
        async with _key(name, namespace, context) as (session, key):
            if key.spec.sha256 is not None:
                typer.echo(await _replace_hash(session, key))
                note("the old key is refused within seconds")
            else:
                typer.echo(await _rotate_in_secret(session, key))
                note("the old key goes on for ten minutes")

    run(work)


@app.command("suspend")
def on_suspend(name: NameArgument, namespace: NamespaceOption = None, context: ContextOption = None) -> None:
    """Stop a key, until it is resumed."""
    _set_suspended(name, namespace, context, suspended=True)


@app.command("resume")
def on_resume(name: NameArgument, namespace: NamespaceOption = None, context: ContextOption = None) -> None:
    """Let a suspended key in again."""
    _set_suspended(name, namespace, context, suspended=False)


@app.command("revoke")
def on_revoke(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Delete a key; it is refused within seconds."""

    async def work() -> None:
        async with _key(name, namespace, context) as (session, key):
            owner = f" of {key.spec.owner}" if key.spec.owner else ""
            if not yes and not typer.confirm(f"Revoke key {name}{owner} in namespace {session.namespace}?"):
                raise Failed("nothing was changed")
            await session.client.delete(API_KEYS, session.namespace, name, uid=key.metadata.uid)
            note(f"apikey/{name} is gone; the gateway refuses it within seconds")

    run(work)


def parse_span(text: str) -> timedelta:
    """30d, 12h, 8w or 45m as a time; Failed for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)
    if not found:
        raise Failed(f"--expires {text}: write a number with m, h, d or w, such as 30d")
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    return timedelta(**{units[found[2]]: int(found[1])})


@asynccontextmanager
async def _key(name: str, namespace: str | None, context: str | None) -> AsyncIterator[tuple[Session, ApiKey]]:
    async with connected(namespace, context) as session:
        yield session, await _read(session, name)


async def _read(session: Session, name: str) -> ApiKey:
    found = await session.client.get(API_KEYS, session.namespace, name)
    if found is None:
        raise Failed(f"there is no ApiKey {name} in namespace {session.namespace}: kubectl stoker key list -A")
    return ApiKey.model_validate(found)


def _set_suspended(name: str, namespace: str | None, context: str | None, *, suspended: bool) -> None:
    async def work() -> None:
        async with _key(name, namespace, context) as (session, key):
            patch = {"metadata": {"uid": key.metadata.uid}, "spec": {"suspend": suspended}}
            await session.client.merge(API_KEYS, session.namespace, name, patch)
            note(f"apikey/{name} is {'suspended: the gateway refuses it' if suspended else 'let in'} within seconds")

    run(work)


async def _replace_hash(session: Session, key: ApiKey) -> str:
    made = build_key(secrets.token_bytes(KEY_BYTES))
    await session.client.merge(API_KEYS, session.namespace, key.metadata.name, build_replacement(key, made))
    return made


async def _rotate_in_secret(session: Session, key: ApiKey) -> str:
    turn = f"{datetime.now(UTC).timestamp():.3f}"
    patch = {"metadata": {"uid": key.metadata.uid, "annotations": {ROTATE_ANNOTATION: turn}}}
    await session.client.merge(API_KEYS, session.namespace, key.metadata.name, patch)
    await _wait(session, key.metadata.name, lambda seen: seen.status.rotated == turn, "made the new key")
    return await session.secret_key(secret_name(key))


async def _tell_whether_let_in(session: Session, name: str) -> None:
    """The condition that the operator gives it: a key that opens nothing should not be found out by using it."""
    seen = await _wait(session, name, lambda seen: _ready(seen) is not None, "looked at it")
    ready = _ready(seen)
    if ready is not None and ready.status != "True":
        raise Failed(f"the key was made, but {ready.reason}: {ready.message}")
    note(f"apikey/{name}: it is not shown again")


async def _wait(session: Session, name: str, done: Callable[[ApiKey], bool], what: str) -> ApiKey:
    try:
        async with asyncio.timeout(OPERATOR_SECONDS):
            async for event in session.client.watch(API_KEYS, session.namespace, name=name):
                for item in event.items if event.type == "LISTED" else [event.object]:
                    if item and done(key := ApiKey.model_validate(item)):
                        return key
    except TimeoutError:
        pass
    raise Failed(
        f"the operator has not {what} within {OPERATOR_SECONDS:.0f} s: does it run? kubectl get pods -A -l app.kubernetes.io/name=stoker"
    )


def _ready(key: ApiKey) -> Condition | None:
    if key.status.observed_generation < key.metadata.generation:
        return None
    return next((condition for condition in key.status.conditions if condition.type == "Ready"), None)
