"""Secrets that a spec names: what signs tokens, addresses with a password, keys of backends outside.

They are not watched, so a new or changed one counts at the next resync.
"""

from __future__ import annotations

from collections.abc import Iterable

from stoker.cluster.objects import secret_text
from stoker.cluster.resource_types import SECRETS
from stoker.reconcile.context import Context


async def read_secret_text(context: Context, namespace: str, name: str, field: str) -> str:
    """Empty where the Secret or the field is not there: what that means is said by whoever needs it."""
    return secret_text(await context.client.get(SECRETS, namespace, name), field)


async def read_secret_texts(context: Context, namespace: str, names: Iterable[str], field: str) -> dict[str, str]:
    """By the name of their Secret, those that are there."""
    found = {name: await read_secret_text(context, namespace, name, field) for name in sorted(set(names))}
    return {name: text for name, text in found.items() if text}
