"""Kopf keeps a copy of each object's essence to find differences; we only hear, so there is nothing to keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kopf


class NothingKept(kopf.DiffBaseStorage):
    """Saves the deep copy of every object at every event, which took half of the operator's time."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None, **_: Any) -> kopf.BodyEssence:
        """Nothing is compared."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""
