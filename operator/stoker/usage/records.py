"""From lines of the access log to numbers: one sum for each day, caller, key, user and model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from urllib.parse import unquote

from stoker.gateway.endings import Line, parse_lines
from stoker.gateway.token_use import TokenCounter


@dataclass(frozen=True, slots=True)
class Group:
    """What is added up together."""

    day: str
    """When the request came, in UTC."""
    caller: str
    key: str
    user: str
    model: str


@dataclass(slots=True)
class Sums:
    """What was used."""

    requests: int = 0
    """That reached an engine."""
    failed: int = 0
    """Of these, not answered with 200: refused by the engine, or left before its answer began."""
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: int = 0
    """Requests whose tokens the engine has not told."""

    def add(self, other: Sums) -> None:
        """One more."""
        for name in SUM_NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def values(self) -> tuple[int, ...]:
        """In the order of SUM_NAMES."""
        return tuple(astuple(self))


SUM_NAMES = tuple(field.name for field in fields(Sums))
Batch = dict[Group, Sums]


def read_batch(data: bytes, counter: TokenCounter) -> tuple[Batch, dict[str, str]]:
    """The sums of a piece of the log, and when each key was last used."""
    return add_up(parse_lines(data), counter)


def add_up(lines: Iterable[Line], counter: TokenCounter) -> tuple[Batch, dict[str, str]]:
    """See read_batch."""
    batch: Batch = {}
    last: dict[str, str] = {}
    for line in lines:
        time, key = str(line.get("time", "")), str(line.get("key", ""))
        if len(time) < len("2026-01-01") or not key:
            continue
        use = counter.read(line)
        group = Group(
            day=time[:10],
            caller=unquote(str(line.get("caller", "") or key)),
            key=key,
            user=unquote(str(line.get("user", ""))),
            model=str(line.get("model", "")),
        )
        sums = Sums(
            1, int(line.get("code") != 200), use.prompt, use.completion, use.cached, use.reasoning, int(use.estimated)
        )
        batch.setdefault(group, Sums()).add(sums)
        last[key] = max(last.get(key, ""), time)
    return batch, last
