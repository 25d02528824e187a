"""Picks a few numbers out of an engine's metrics; a full parser would cost more than the scrape."""

from __future__ import annotations

import math
from collections.abc import Iterable


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
