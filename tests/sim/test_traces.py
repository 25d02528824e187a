"""The stored traffic is what its description says."""

from __future__ import annotations

import pytest
from sim import traces


@pytest.mark.parametrize(
    ("name", "requests", "hours"),
    [
        ("azure_llm_2023_conv", 19_366, 0.97),
        ("azure_llm_2023_code", 8_819, 0.95),
        ("mooncake_conversation", 12_031, 0.99),
        ("servegen_r1_24h", 70_376, 24.0),
    ],
)
def test_a_trace_is_complete_and_in_order(name: str, requests: int, hours: float) -> None:
    trace = traces.load(name)
    assert len(trace) == requests
    assert trace.arrival == sorted(trace.arrival)
    assert trace.arrival[-1] / 3600 == pytest.approx(hours, abs=0.02)
    assert min(trace.prompt) >= 0
    assert min(trace.output) >= 1


def test_copies_keep_bursts_and_a_share_keeps_the_shape() -> None:
    once, four, half = (
        traces.load("azure_llm_2023_code", copies, keep) for copies, keep in ((1, 1.0), (4, 1.0), (1, 0.5))
    )
    assert len(four) == 4 * len(once)
    assert len(half) == pytest.approx(len(once) / 2, rel=0.03)
    busiest = max(sum(t <= a < t + 60 for a in once.arrival) for t in range(0, 3400, 60))
    assert max(sum(t <= a < t + 60 for a in four.arrival) for t in range(0, 3400, 60)) > 2.5 * busiest


def test_the_data_is_small_and_says_where_it_is_from() -> None:
    assert sum(path.stat().st_size for path in traces.DATA.iterdir()) < 1_500_000
    readme = (traces.DATA / "README.md").read_text(encoding="utf-8")
    for path in traces.DATA.glob("*.gz"):
        assert path.name in readme
