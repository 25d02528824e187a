"""The frontier as a picture: cost to the right, requests in time upwards, one panel for each trace."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from sim.suite import CASES, OURS, SETTINGS, Results

_LOOKS = {
    OURS: ("black", "*"),
    "Ray Serve": ("tab:brown", "v"),
    "KubeAI": ("tab:green", "D"),
    "HPA in-flight": ("tab:orange", "^"),
    "Knative KPA": ("tab:blue", "o"),
    "WVA-like": ("tab:pink", "P"),
    "KEDA waiting": ("tab:red", "s"),
    "static": ("0.5", "x"),
}


def draw(results: Results, path: Path) -> None:
    """Write the PNG; our default is the large star."""
    figure = Figure(figsize=(11, 8))
    axes = figure.subplots(2, 2)
    for panel, (key, case) in zip(axes.flat, CASES.items(), strict=True):
        for family, (colour, marker) in _LOOKS.items():
            means = sorted(
                (mean.gpu_hours, mean.within)
                for name, setting in SETTINGS.items()
                if setting.family == family
                for mean in [results.mean(key, name)]
            )
            panel.plot(
                *zip(*means, strict=True), color=colour, marker=marker, markersize=5, linewidth=0.7, label=family
            )
        ours = results.mean(key, OURS)
        panel.plot(ours.gpu_hours, ours.within, color="black", marker="*", markersize=17, zorder=5)
        panel.set_title(f"{case.title}: first token in {case.goal:g} s", fontsize=10)
        panel.set_xlim(0, 2.2 * ours.gpu_hours)
        panel.set_ylim(60, 101)
        panel.grid(alpha=0.3)
    for panel in axes[1]:
        panel.set_xlabel("GPU-hours")
    for panel in axes[:, 0]:
        panel.set_ylabel("% of requests in time")
    axes[0][0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
