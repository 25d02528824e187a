"""Options that all commands share, the connection to the cluster, and how a failure is told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from stoker.api import ApiGateway
from stoker.api.names import KEY_SECRET_FIELD, admin_key_name
from stoker.cluster.client import KubeClient
from stoker.cluster.connection import ConnectionNotConfigured, read_namespace
from stoker.cluster.errors import ApiError, ApiUnavailable
from stoker.cluster.objects import secret_text
from stoker.cluster.resource_types import API_GATEWAYS, SECRETS

NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace. Default: the one kubectl uses now.", show_default=False),
]
ContextOption = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig. Default: the current one.", show_default=False),
]
GatewayOption = Annotated[
    str | None,
    typer.Option("--gateway", "-g", help="ApiGateway. Default: the only one of the namespace.", show_default=False),
]


class Failed(Exception):
    """What was asked for cannot be done; the message says why, and the next step."""


@dataclass(frozen=True)
class Session:
    """The cluster as one command sees it."""

    client: KubeClient
    namespace: str

    async def gateway(self, name: str | None) -> ApiGateway:
        """The gateway of this name, or the only one there is."""
        if name is not None:
            found = await self.client.get(API_GATEWAYS, self.namespace, name)
            if found is None:
                raise Failed(f"there is no ApiGateway {name} in namespace {self.namespace}: kubectl get apigateways -A")
            return ApiGateway.model_validate(found)
        items, _ = await self.client.list(API_GATEWAYS, self.namespace)
        names = sorted(item["metadata"]["name"] for item in items)
        if not names:
            raise Failed(
                f"namespace {self.namespace} has no ApiGateway: choose another with --namespace, or create one"
            )
        if len(names) > 1:
            raise Failed(f"namespace {self.namespace} has the ApiGateways {', '.join(names)}: choose with --gateway")
        return ApiGateway.model_validate(items[0])

    async def secret_key(self, secret: str, field: str = KEY_SECRET_FIELD) -> str:
        """What a Secret holds."""
        text = secret_text(await self.client.get(SECRETS, self.namespace, secret), field)
        if not text:
            raise Failed(f"Secret {secret} in namespace {self.namespace} is not there, or has no readable {field}")
        return text

    async def admin_key(self, gateway: ApiGateway) -> str:
        """The key that Stoker made for the gateway's own admin."""
        if not gateway.spec.auth.admin_key:
            raise Failed(
                f"ApiGateway {gateway.metadata.name} has no admin key (spec.auth.adminKey): give one in STOKER_API_KEY"
            )
        return await self.secret_key(gateway.status.admin_secret_name or admin_key_name(gateway.metadata.name))


@asynccontextmanager
async def connected(namespace: str | None, context: str | None) -> AsyncIterator[Session]:
    """A session that ends with the command."""
    async with await KubeClient.connect(context=context) as client:
        yield Session(client, namespace or read_namespace(context))


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do it; a failure becomes one line on stderr and exit code 1."""
    try:
        asyncio.run(work())
    except (Failed, ConnectionNotConfigured) as error:
        fail(str(error))
    except ApiUnavailable as error:
        fail(f"the API server does not answer: {error.message}")
    except ApiError as error:
        fail(explain(error))
    except ValidationError as error:
        fail(f"an object is not as this version of Stoker knows it: {error.errors()[0]['msg']}")


def explain(error: ApiError) -> str:
    """The API server's words, and what they mean for somebody who does not know Stoker's objects."""
    # The address of a kind that is not there is answered in plain text, an object that is not there with a Status.
    if error.status == 404 and not error.reason:
        return "this cluster does not know Stoker's kinds: install Stoker, or only its CRDs (kubectl apply -k crds/)"
    if error.status == 403:
        return f"you may not do that; whoever runs the cluster can give you a role: {error.message}"
    return error.message or str(error)


def fail(message: str) -> None:
    """Say it and leave."""
    note(f"error: {message}")
    raise typer.Exit(1)


def note(message: str) -> None:
    """A remark: on stderr, so that the output can be used."""
    sys.stderr.write(f"{message}\n")
