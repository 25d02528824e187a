"""Decides again what `GET /debug/scaling/NAMESPACE/NAME` tells, from what was known then.

    curl -s localhost:8080/debug/scaling/NAMESPACE/NAME | .venv/bin/python tests/replay.py

The code that decided says the same again; changed code says what it would have done.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "operator")]

from stoker.scaling.record import Record, make_record  # noqa: E402


def replay(told: dict[str, Any]) -> Iterator[tuple[Record, Record]]:
    """Each decision as it was and as it is made now, the oldest first."""
    for entry in [*told["decisions"], *([told["newest"]] if told["newest"] else [])]:
        was = Record.from_dict(entry)
        yield was, make_record(was.now, was.samples, was.replicas, was.learned, was.memory, was.spec)


def main() -> int:
    """One line for each decision; 1 when any of them would be another one now."""
    differs = False
    for was, now in replay(json.load(sys.stdin)):
        at = datetime.fromtimestamp(was.now, UTC).strftime("%H:%M:%S")
        same = (was.decision.desired, was.decision.reason) == (now.decision.desired, now.decision.reason)
        print(f"{at} {was.decision.message} ({was.decision.reason})")
        if not same:
            differs = True
            print(f"         now {now.decision.message} ({now.decision.reason})")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
