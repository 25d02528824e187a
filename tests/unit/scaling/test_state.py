from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from stoker.scaling import Learned, Memory

Make = Callable[..., Any]


def test_state_survives_json_and_stays_small(model: Make) -> None:
    """Sixteen replicas that come and go until every list is full."""
    full = model(desired=1, max_replicas=16, max_hold_seconds=60, initial_hold_seconds=30)
    for _ in range(30):
        full.run(20, arrivals=60, completions=60, running=40)
        full.run(200, step=20)
    text = json.dumps(full.memory.to_dict(), separators=(",", ":"))
    assert Memory.from_dict(json.loads(text)) == full.memory
    assert Learned.from_dict(json.loads(json.dumps(full.learned.to_dict()))) == full.learned
    assert max(len(level.gaps) for level in full.memory.levels) == 20
    assert len(text) < 5000


def test_nothing_learned_is_nothing_written() -> None:
    assert Learned().to_dict() == {}
    assert Learned.from_dict({}) == Learned()


@pytest.mark.parametrize(
    "damaged", [{"queues": "many"}, {"queues": [float("nan")]}, {"time": float("inf")}, {"levels": [1]}]
)
def test_damaged_state_is_refused(damaged: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Memory.from_dict(damaged)
