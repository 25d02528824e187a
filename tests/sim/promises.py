"""What the autoscaler promises, as numbers that a run either keeps or breaks."""

from __future__ import annotations

from dataclasses import dataclass

from sim.suite import CASES, OURS, SETTINGS, SPARSE, Results


@dataclass(frozen=True)
class Promise:
    """One number, its limit, and whether it was kept."""

    name: str
    limit: str
    seen: str
    kept: bool


def _at_least(name: str, seen: float, limit: float, unit: str = " %") -> Promise:
    return Promise(name, f"≥ {limit:g}{unit}", f"{seen:.2f}{unit}", seen >= limit)


def _at_most(name: str, seen: float, limit: float, unit: str = " GPU-h") -> Promise:
    return Promise(name, f"≤ {limit:g}{unit}", f"{seen:.2f}{unit}", seen <= limit)


def traces(results: Results) -> list[Promise]:
    """One default on four traces: requests in time, and what that costs."""
    hours, within = results.total(OURS)
    promises = [_at_least("four traces, in time", within, 97.0), _at_most("four traces, cost", hours, 122.0)]
    for case, least, most in (("conv", 99.5, 6.5), ("code", 92.0, 10.7), ("mooncake", 95.0, 12.5), ("r1", 97.0, 93.0)):
        mean = results.mean(case, OURS)
        promises += [
            _at_least(f"{CASES[case].title}, in time", mean.within, least),
            _at_most(f"{CASES[case].title}, cost", mean.gpu_hours, most),
        ]
    return promises


def peers(results: Results) -> list[Promise]:
    """Against every other policy at one setting for all traces."""
    hours, within = results.total(OURS)
    rivals = [
        name for name, s in SETTINGS.items() if s.family in ("Ray Serve", "KubeAI", "Knative KPA", "HPA in-flight")
    ]
    totals = {name: results.total(name) for name in rivals}
    good = {name: total for name, total in totals.items() if total[1] >= 95.5}
    cheapest = min(good, key=lambda name: good[name][0])
    keda_hours, keda_within = results.total("KEDA waiting 5")
    return [
        _at_most(f"cost by {cheapest}'s, the cheapest rival ≥ 95.5 %", hours / good[cheapest][0], 0.85, ""),
        _at_least("points above KEDA waiting 5", within - keda_within, 15.0, ""),
        _at_most("cost by KEDA waiting 5's", hours / keda_hours, 0.90, ""),
    ]


def trials(results: Results) -> list[Promise]:
    """Sleep, lost readings, and a gateway that binds early."""
    within = results.total(OURS)[1]
    lost = [results.mean(case, OURS, "readings lost") for case in CASES]
    lost_within = sum(mean.within for mean in lost) / len(lost)
    early = results.mean("r1", OURS, "early binding")
    asleep = sum(results.mean(case, f"{OURS} from zero").failed for case in SPARSE)
    ours_failed = sum(results.mean(case, OURS).failed for case in CASES)
    return [
        _at_most("requests lost, four traces", ours_failed, 0, ""),
        _at_most("requests lost by a model that sleeps", asleep, 0, ""),
        _at_least(
            "30 % of readings lost and 30 s dark each 10 min: points against none lost", lost_within - within, -2.0, ""
        ),
        _at_most("replicas removed while nothing was seen", sum(mean.blind_shrinks for mean in lost), 0, ""),
        _at_least("early binding, DeepSeek-R1, in time", early.within, 97.5),
        _at_most("early binding, DeepSeek-R1, cost", early.gpu_hours, 110.0),
    ]


def all_promises(results: Results) -> list[Promise]:
    """Everything that `make sim` holds us to."""
    return [*traces(results), *peers(results), *trials(results)]
