"""Ways round the door: each is one attack on a gateway, by somebody without a key, or with a key that opens one model only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gateway.conftest import World
from gateway.fake_issuer import FakeIssuer
from gateway.pod import Answer

GUEST = "sk-guest"
"""Opens `embed` and nothing else."""
CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "Hi"}]}
CHAT_PATH = "/v1/chat/completions"
EMBED_PATH = "/v1/embeddings"


@dataclass
class Fortress:
    """What is attacked."""

    world: World
    issuer: FakeIssuer

    @property
    def port(self) -> int:
        return self.world.pod.port

    def ask(
        self, key: str | None = None, headers: dict[str, str] | None = None, body: Any = None, target: str = CHAT_PATH, method: str = "POST"
    ) -> Answer:  # fmt: skip
        """One call for `qwen`, which nobody here may use."""
        return self.world.pod.request(method, target, CHAT if body is None else body, key, headers)


Attack = Callable[[Fortress], None]


@dataclass(frozen=True)
class Way:
    """An attack, and what of it an engine may see: calls of the guest's to the model that is his."""

    name: str
    attack: Attack
    lets_through: int = 0


WAYS: dict[str, Way] = {}


def way(name: str, *, lets_through: int = 0) -> Callable[[Attack], Attack]:
    """Put an attack on the list."""

    def register(attack: Attack) -> Attack:
        assert name not in WAYS, name
        WAYS[name] = Way(name, attack, lets_through)
        return attack

    return register


def at_once(attempt: Callable[[Any], None], cases: Iterable[Any]) -> None:
    """Each case by itself, and none waits for another: Envoy takes a second to hang up."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, cases))


def refused(answer: Answer, *statuses: int) -> None:
    """With a body in OpenAI's shape."""
    assert answer.status in statuses, (answer.status, answer.body[:300])
    assert answer.error["message"]


def dumps(content: Any) -> bytes:
    return json.dumps(content).encode()
