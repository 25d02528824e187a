"""Shared secrets that tokens are signed with, and keys of backends outside, from the Secrets that hold them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable

from stoker.api.names import JWT_SECRET_FIELD
from stoker.cluster.resource_types import SECRETS
from stoker.reconcile.context import Context


async def read_token_secrets(
    context: Context, namespace: str, names: Iterable[str], field: str = JWT_SECRET_FIELD
) -> dict[str, str]:
    """By the name of their Secret, those that can be read; they are not watched, so a new one counts at the next resync."""
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        secret = await context.client.get(SECRETS, namespace, name)
        with contextlib.suppress(KeyError, ValueError):
            found[name] = base64.b64decode(((secret or {}).get("data") or {})[field]).decode()
    return found
