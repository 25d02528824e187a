"""The costs as a picture: how many times bare Envoy's, on a scale that has room for all."""

from __future__ import annotations

from pathlib import Path

from bench.gateway.report import BARE, DIRECT, OURS, Measured
from bench.gateway.runs import median_ratio
from matplotlib.figure import Figure


def draw(measured: Measured, path: Path) -> None:
    """Write the PNG."""
    figure = Figure(figsize=(9, 3.2))
    panels = figure.subplots(1, 2)
    bare = measured.gateways[BARE]
    names = [name for name in measured.gateways if name != DIRECT][::-1]
    for panel, title, of in (
        (panels[0], "CPU of a request", lambda numbers: numbers.request_us),
        (panels[1], "CPU of a streamed chunk", lambda numbers: numbers.chunk_us),
    ):
        ratios = [median_ratio(of(measured.gateways[name]), of(bare))[0] for name in names]
        bars = panel.barh(names, ratios, color=["tab:orange" if name == OURS else "0.6" for name in names])
        panel.bar_label(bars, [f"{ratio:.3g}" for ratio in ratios], padding=3, fontsize=9)
        panel.set_xscale("log")
        panel.set_xlim(0.3, 4 * max(ratios))
        panel.axvline(1, color="black", linewidth=0.7)
        panel.set_title(f"{title} : bare Envoy", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
