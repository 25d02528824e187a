"""Picks a few numbers out of an engine's metrics; a full parser would cost more than the scrape."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

_LE = re.compile(r'[{,]le="([^"]+)"')


def sum_series(text: str, names: Iterable[str]) -> dict[str, float]:
    """Value of each series by name, summed over its labels; a series that is not there, or not a number, is left out."""
    sums: dict[str, float] = {}
    unusable: set[str] = set()
    wanted = {name for name in names if name}
    for line in text.splitlines():
        brace = line.find("{")
        name = line[:brace] if brace >= 0 else line.partition(" ")[0]
        if name not in wanted:
            continue
        rest = line[line.rfind("}") + 1 :] if brace >= 0 else line[len(name) :]
        try:
            value = float(rest.split()[0])
        except (ValueError, IndexError):
            value = math.nan
        if math.isfinite(value) and value >= 0:
            sums[name] = sums.get(name, 0.0) + value
        else:
            # Half a sum would look like less load than there is.
            unusable.add(name)
    return {name: value for name, value in sums.items() if name not in unusable}


@dataclass(frozen=True)
class Histogram:
    """A histogram summed over its labels: cumulative counts by upper bound as it was written, and the sum."""

    buckets: tuple[tuple[str, float], ...]
    total: float


def largest(text: str, name: str) -> float | None:
    """The highest value of a series over its labels: a ratio cannot be summed."""
    values = [value for value in (_value(line) for line in text.splitlines() if _is(line, name)) if value is not None]
    return max(values, default=None)


def read_histogram(text: str, name: str) -> Histogram | None:
    """A histogram by its name; None when it is not there, or not whole."""
    bounds: dict[str, float] = {}
    total: float | None = None
    for line in text.splitlines():
        if _is(line, f"{name}_bucket"):
            bound, value = _LE.search(line), _value(line)
            if bound is None or value is None:
                return None
            bounds[bound[1]] = bounds.get(bound[1], 0.0) + value
        elif _is(line, f"{name}_sum"):
            value = _value(line)
            if value is None:
                return None
            total = (total or 0.0) + value
    if total is None or "+Inf" not in bounds:
        return None
    return Histogram(tuple(sorted(bounds.items(), key=lambda item: float(item[0]))), total)


def _is(line: str, name: str) -> bool:
    return line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " ")


def _value(line: str) -> float | None:
    rest = line[line.rfind("}") + 1 :] if "}" in line else line.partition(" ")[2]
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and value >= 0 else None
