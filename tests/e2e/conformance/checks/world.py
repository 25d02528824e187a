"""What a check may use, and how its outcome is told: one line of JSON for each check of a file.

The checks run in the clients' own virtual environment, so this file knows nothing of Stoker or pytest.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class World:
    """A gateway as its user knows it."""

    url: str
    """Without /v1."""
    key: str
    model: str
    strict: bool
    """In front of the mock that repeats what was said; else a real, very small model, of which only form can be expected. A check
    that takes more than that asks for `strict`: llama.cpp with SmolLM2 calls no tool, even where one must be called."""
    embedding_model: str = ""
    audio_model: str = ""

    @property
    def base(self) -> str:
        return f"{self.url}/v1"

    def expect(self, text: str | None, said: str) -> None:
        """The answer to something that was said."""
        assert text
        assert not self.strict or text.strip() == f"PONG {self.model}: {said}", text


class Caught:
    """The exception that a block ended with."""

    error: Any = None


@contextmanager
def raises(kind: type[Exception]) -> Iterator[Caught]:
    """As in pytest, which these environments do not have."""
    caught = Caught()
    try:
        yield caught
    except kind as error:
        caught.error = error
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def run(module: dict[str, Any]) -> None:
    """Every check_ function of a module, and nothing of one stops the next."""
    world = World(**json.loads(sys.argv[1]))
    for name, check in list(module.items()):
        if name.startswith("check_"):
            print(json.dumps({"check": name.removeprefix("check_"), "problem": outcome(check, world)}), flush=True)


def outcome(check: Callable[[World], Any], world: World) -> str:
    """Nothing when all was well, "skipped" where the world lacks a model for it, else what went wrong."""
    needs = [parameter for parameter in inspect.signature(check).parameters if parameter != "world"]
    given = {need: getattr(world, need) for need in needs}
    if not all(given.values()):
        return "skipped"
    try:
        result = check(world, **given)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception:
        return traceback.format_exc(limit=-3)
    return ""
