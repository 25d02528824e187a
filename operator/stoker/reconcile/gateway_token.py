"""The token between the operator and a gateway's pods."""

from __future__ import annotations

import secrets

import orjson

from stoker.api import ApiGateway
from stoker.api.names import ROUTES_FIELD, routes_secret_name
from stoker.cluster.resource_types import SECRETS
from stoker.reconcile.context import Context
from stoker.reconcile.named_secrets import read_secret_text


async def read_or_make_token(context: Context, gateway: ApiGateway) -> str:
    """It lives in the routes Secret only, and ends with it: whoever deletes the Secret gets another token.

    That Secret holds every model, so its content is not read again for what is known.
    """
    place = gateway.metadata.namespace, routes_secret_name(gateway.metadata.name)
    known = context.gateway_tokens.get(gateway.key)
    if known is not None and await context.client.get(SECRETS, *place, only_metadata=True) is not None:
        return known
    try:
        token = orjson.loads(await read_secret_text(context, *place, ROUTES_FIELD))["token"]
        if isinstance(token, str) and token:
            return token
    except (KeyError, ValueError, TypeError):
        # No Secret yet, or one edited by hand: it is written anew with a new token.
        pass
    return secrets.token_urlsafe(32)
