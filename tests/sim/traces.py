"""The traffic that policies are tried on."""

from __future__ import annotations

import csv
import gzip
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class Trace:
    """Requests in the order of their arrival."""

    arrival: list[float]
    prompt: list[int]
    output: list[int]

    def __len__(self) -> int:
        return len(self.arrival)


@cache
def load(name: str, copies: int = 1, keep: float = 1.0) -> Trace:
    """A stored trace; further copies are shifted request by request by up to 30 s, so that bursts stay bursts."""
    with gzip.open(DATA / f"{name}.csv.gz", "rt") as file:
        rows = [(float(a), int(p), int(o)) for a, p, o in list(csv.reader(file))[1:]]
    rng = random.Random(3)
    end = rows[-1][0]
    requests = list(rows)
    for _ in range(copies - 1):
        requests += [(min(max(a + rng.uniform(-30.0, 30.0), 0.0), end), p, o) for a, p, o in rows]
    if keep < 1.0:
        requests = [request for request in requests if rng.random() < keep]
    requests.sort(key=lambda request: request[0])
    return Trace([r[0] for r in requests], [r[1] for r in requests], [r[2] for r in requests])
