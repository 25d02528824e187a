"""What is run: which policies and settings, on which traffic, and what of it is kept."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from sim import traces
from sim.engine import Engine
from sim.ours import Stoker
from sim.peers import Hpa, Kpa, KubeAi, RayServe, Static, Wva
from sim.traces import Trace
from sim.world import Platform, Policy, simulate

SEEDS = (1, 2, 3)
OURS = "Stoker"
LLAMA_8B = Engine()


@dataclass(frozen=True)
class Case:
    """Traffic, the replicas that it begins with, and the time to the first token that its users accept."""

    title: str
    trace: str
    start: int
    goal: float = 2.0
    copies: int = 1
    keep: float = 1.0
    engine: Engine = LLAMA_8B
    cold_start: tuple[float, float, float] = (75.0, 30.0, 180.0)

    def load(self) -> Trace:
        """Its requests."""
        return traces.load(self.trace, self.copies, self.keep)


CASES = {
    "conv": Case("Azure 2023 conversation ×4, 1 h", "azure_llm_2023_conv", start=5, copies=4),
    "code": Case("Azure 2023 code ×4, 1 h", "azure_llm_2023_code", start=4, copies=4),
    "mooncake": Case("Mooncake conversation, 1 h", "mooncake_conversation", start=8, goal=10.0),
    "r1": Case("ServeGen DeepSeek-R1, 24 h", "servegen_r1_24h", start=2),
}
SPARSE = {
    "sparse": Case("ServeGen DeepSeek-R1 ×0.005, 24 h", "servegen_r1_24h", start=0, keep=0.005),
    "rare": Case("ServeGen DeepSeek-R1 ×0.0005, 24 h", "servegen_r1_24h", start=0, keep=0.0005),
}
"""Traffic with pauses for which a model may sleep."""
_SLOW = Engine(step=0.035, per_sequence=4e-5, per_token=1e-7, prompt_tokens_per_second=3000.0, cache_tokens=200_000)
OTHERS = {
    "conv2": Case("conversation ×2", "azure_llm_2023_conv", start=3, copies=2),
    "code3": Case("code ×3", "azure_llm_2023_code", start=3, copies=3),
    "mooncake0.7": Case("Mooncake ×0.7", "mooncake_conversation", start=6, goal=10.0, keep=0.7),
    "slow": Case(
        "conversation ×1, engine 3 to 4 times slower, starts in 1 to 6 min",
        "azure_llm_2023_conv",
        start=4,
        goal=4.0,
        engine=_SLOW,
        cold_start=(150.0, 60.0, 360.0),
    ),
    "late": Case(
        "DeepSeek-R1 ×0.6, starts in 2 to 8 min", "servegen_r1_24h", start=2, keep=0.6, cold_start=(240.0, 120.0, 480.0)
    ),
    "quick": Case(
        "DeepSeek-R1 ×0.6, starts in 10 to 40 s", "servegen_r1_24h", start=2, keep=0.6, cold_start=(20.0, 10.0, 40.0)
    ),
}
"""Other amounts, engines and cold starts; looked at only after the defaults were chosen."""
RIVALS = ("Ray Serve 8", "KubeAI 4", "HPA in-flight 8", "KEDA waiting 5", "static 8")
"""For the other traffic: the setting of each that did best on the four traces, KEDA as documented, and a fixed number."""
ALL_CASES = CASES | SPARSE | OTHERS


@dataclass(frozen=True)
class Setting:
    """A policy with its parameters."""

    family: str
    value: str
    make: Callable[[], Policy]


def _setting(family: str, value: object, make: Callable[[], Policy]) -> tuple[str, Setting]:
    return f"{family} {value}".strip(), Setting(family, str(value), make)


def _stoker(**spec: float) -> Callable[[], Policy]:
    return lambda: Stoker(**spec)


SETTINGS = dict(
    [
        _setting(OURS, "", _stoker()),
        *[_setting(OURS, f"penalty {p}", _stoker(cold_start_penalty_seconds=p)) for p in (150, 900)],
        *[_setting("Ray Serve", n, lambda n=n: RayServe(n)) for n in (4, 8, 16)],
        *[_setting("KubeAI", n, lambda n=n: KubeAi(n)) for n in (4, 8, 16, 100)],
        *[_setting("HPA in-flight", n, lambda n=n: Hpa(n, "in-flight")) for n in (4, 8, 12, 16, 32)],
        *[_setting("Knative KPA", n, lambda n=n: Kpa(n)) for n in (4, 8, 16, 70)],
        *[_setting("WVA-like", n, lambda n=n: Wva(n)) for n in (0.5, 0.85)],
        *[_setting("KEDA waiting", n, lambda n=n: Hpa(n, "waiting")) for n in (1, 5, 20)],
        *[_setting("static", n, lambda n=n: Static(n)) for n in (3, 4, 6, 8, 10)],
    ]
)
AS_SHIPPED = {
    "production-stack's KEDA tutorial": (
        "KEDA waiting 5, no sum()",
        Platform(late_binding=False, hold_seconds=0, drain_grace=30),
    ),
    "the same with sum() in the query": (
        "KEDA waiting 5",
        Platform(late_binding=False, hold_seconds=0, drain_grace=30),
    ),
    "Knative, target 100 × 70 %": (
        "KPA 70 from zero",
        Platform(late_binding=False, hold_seconds=300, patience=300, drain_grace=300),
    ),
    "KubeAI, targetRequests 100": ("KubeAI 100 from zero", Platform(late_binding=False, drain_grace=30)),
    "Ray Serve, target 2": ("Ray Serve 2", Platform(late_binding=False)),
    "Stoker": ("Stoker from zero", Platform()),
}
"""Each project's own defaults together with its own gateway's habits."""
_MORE = dict(
    [
        _setting("KEDA waiting", "5, no sum()", lambda: Hpa(5, "waiting", one_series=True)),
        _setting("KPA", "70 from zero", lambda: Kpa(70, min_replicas=0)),
        _setting("KubeAI", "100 from zero", lambda: KubeAi(100, min_replicas=0)),
        _setting("Ray Serve", "2", lambda: RayServe(2)),
        _setting(OURS, "from zero", _stoker(min_replicas=0)),
    ]
)
PLATFORMS = {
    "": Platform(),
    "readings lost": Platform(missed=0.3, blackout_every=600.0),
    "early binding": Platform(late_binding=False),
    **{name: platform for name, (_, platform) in AS_SHIPPED.items()},
}


@dataclass(frozen=True)
class Job:
    """One run."""

    case: str
    setting: str
    platform: str
    seed: int


@dataclass(frozen=True)
class Run:
    """What is kept of one run."""

    job: Job
    gpu_hours: float
    within: float
    """Percent of requests in time."""
    failed: int
    changes: int
    turns: int
    blind_shrinks: int
    median: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Mean:
    """The same over all seeds."""

    gpu_hours: float
    within: float
    failed: int
    changes: float
    turns: float
    blind_shrinks: int
    median: float
    p95: float
    p99: float
    worst_within: float


def run_job(job: Job) -> Run:
    """Simulate one run."""
    case = ALL_CASES[job.case]
    policy = (SETTINGS | _MORE)[job.setting].make()
    start = policy.max_replicas if isinstance(policy, Static) else case.start
    platform = replace(PLATFORMS[job.platform], cold_start=case.cold_start)
    outcome = simulate(case.load(), policy, seed=job.seed, start=start, platform=platform, engine=case.engine)
    return Run(
        job=job,
        gpu_hours=outcome.gpu_hours,
        within=100 * outcome.within(case.goal),
        failed=outcome.failed,
        changes=outcome.changes,
        turns=outcome.turns,
        blind_shrinks=outcome.blind_shrinks,
        median=outcome.quantile(0.5),
        p95=outcome.quantile(0.95),
        p99=outcome.quantile(0.99),
    )


class Results:
    """All runs, looked up by what was run."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = {run.job: run for run in runs}

    def mean(self, case: str, setting: str, platform: str = "") -> Mean:
        """Over the seeds that were run."""
        runs = [
            run for job, run in self.runs.items() if (job.case, job.setting, job.platform) == (case, setting, platform)
        ]

        def average(name: str) -> float:
            return statistics.fmean(getattr(run, name) for run in runs)

        return Mean(
            gpu_hours=average("gpu_hours"),
            within=average("within"),
            failed=sum(run.failed for run in runs),
            changes=average("changes"),
            turns=average("turns"),
            blind_shrinks=sum(run.blind_shrinks for run in runs),
            median=average("median"),
            p95=average("p95"),
            p99=average("p99"),
            worst_within=min(run.within for run in runs),
        )

    def total(self, setting: str) -> tuple[float, float]:
        """GPU-hours summed and attainment averaged over the four traces."""
        means = [self.mean(case, setting) for case in CASES]
        return sum(mean.gpu_hours for mean in means), statistics.fmean(mean.within for mean in means)


def frontier_jobs(seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Every policy on every trace."""
    return [Job(case, setting, "", seed) for case in CASES for setting in SETTINGS for seed in seeds]


def trial_jobs(seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Ours where things go wrong, and asleep; everybody as shipped."""
    trials = [Job("r1", OURS, "early binding", seed) for seed in seeds]
    trials += [Job(case, OURS, "readings lost", seed) for case in CASES for seed in seeds]
    trials += [Job(case, f"{OURS} from zero", "", seed) for case in SPARSE for seed in seeds]
    trials += [Job("r1", setting, name, seed) for name, (setting, _) in AS_SHIPPED.items() for seed in seeds]
    return trials


def other_jobs(seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Ours and a few others on traffic that nothing was chosen on."""
    return [Job(case, setting, "", seed) for case in OTHERS for setting in (OURS, *RIVALS) for seed in seeds]


def run_all(jobs: Sequence[Job], processes: int | None = None) -> Results:
    """Run them side by side, those of the longest trace first."""
    ordered = sorted(jobs, key=lambda job: job.case != "r1")
    # Forking a process that has threads is not safe, and Python says so from 3.12 on.
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        return Results(pool.map(run_job, ordered, chunksize=4))
