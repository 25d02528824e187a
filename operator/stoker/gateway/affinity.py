"""Which replica is likely to remember a conversation: the same head of a conversation goes to the same place on a ring.

Every gateway replica computes the same, so nothing has to be shared. Engines keep the keys and values of what they have read; a
conversation that goes on where it was is answered without reading it all again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

POINTS = 64
"""Places of one endpoint on the ring: with 64 the busiest of ten gets about a fifth more than its share."""
LONGEST_HEAD = 4096
"""Characters that are looked at; long system prompts differ early, if at all."""


class Ring:
    """Consistent hashing: an endpoint that comes or goes moves only its own share of conversations."""

    def __init__(self, addresses: Iterable[str]) -> None:
        points = sorted(
            (position_of(f"{address} {number}".encode()), address) for address in addresses for number in range(POINTS)
        )
        self._positions = [position for position, _ in points]
        self._addresses = [address for _, address in points]

    def walk(self, position: int) -> Iterator[str]:
        """All endpoints, from the nearest on."""
        addresses, count = self._addresses, len(self._addresses)
        start = bisect.bisect(self._positions, position)
        seen: set[str] = set()
        for step in range(start, start + count):
            address = addresses[step % count]
            if address not in seen:
                seen.add(address)
                yield address

    def first(self, position: int) -> str:
        """The nearest endpoint."""
        return self._addresses[bisect.bisect(self._positions, position) % len(self._addresses)]


def position_of(text: bytes) -> int:
    """A place on the ring, the same in every process."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def conversation_position(document: Mapping[str, Any]) -> int | None:
    """Where a request belongs by what it begins with: instructions and the first thing the user said. None where that says nothing."""
    head = [_text(document.get(name)) for name in ("instructions", "system", "prompt")]
    for name in ("messages", "input"):
        turns = document.get(name)
        if isinstance(turns, str):
            head.append(turns[:LONGEST_HEAD])
        elif isinstance(turns, list):
            head.extend(_first_turns(turns))
    text = "\n".join(head).strip("\n")[:LONGEST_HEAD]
    return position_of(text.encode("utf-8", "replace")) if text else None


def _first_turns(turns: list[Any]) -> Iterator[str]:
    for turn in turns[:8]:
        if not isinstance(turn, dict):
            return
        yield _text(turn.get("content"))
        if turn.get("role") == "user":
            return


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content[:LONGEST_HEAD]
    if isinstance(content, list):
        parts = (part.get("text") for part in content[:8] if isinstance(part, dict))
        return "\n".join(part[:LONGEST_HEAD] for part in parts if isinstance(part, str))
    return ""
