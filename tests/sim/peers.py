"""The scaling policies of other projects, written anew from their documentation and defaults.

Kubernetes HPA v2 and KEDA 2 (with the trigger of vLLM's production-stack), Knative Serving's KPA, KubeAI, Ray Serve, and
llm-d's workload-variant-autoscaler in the shape of its saturation analysis. All run behind the same simulated gateway.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

from sim.world import View

MAX_REPLICAS = 16


class Static:
    """A number that somebody chose."""

    scrape = 0.0
    period = 60.0
    wakes = False

    def __init__(self, replicas: int) -> None:
        self.min_replicas = self.max_replicas = replicas

    def decide(self, view: View) -> int:
        return self.min_replicas


class Hpa:
    """HPA on one external metric with an average target, which is what a KEDA ScaledObject makes.

    `ceil(total / target)` outside a tolerance of 10 %; up at most by 4 or 100 % in 15 s; down by the highest
    recommendation of 300 s. From zero by KEDA's poll, to zero when the trigger was inactive for the cool-down.
    """

    period = 15.0
    scrape = 15.0
    max_replicas = MAX_REPLICAS
    wakes = False

    def __init__(
        self,
        target: float,
        metric: Literal["waiting", "in-flight"],
        *,
        min_replicas: int = 1,
        down_window: float = 300.0,
        cooldown: float = 300.0,
        one_series: bool = False,
    ) -> None:
        self.target, self.metric, self.down_window, self.cooldown = target, metric, down_window, cooldown
        self.min_replicas = min_replicas
        self.one_series = one_series  # the query has no sum(): two engines are two series, which KEDA refuses
        self.recommended: deque[tuple[float, int]] = deque()
        self.added: deque[tuple[float, int]] = deque()
        self.active = 0.0

    def decide(self, view: View) -> int:
        total = view.reading.waiting if self.metric == "waiting" else view.reading.in_flight
        if total > 0:
            self.active = view.now
        if view.desired == 0:
            return 1 if total > 0 else 0
        if self.min_replicas == 0 and total <= 0 and view.now - self.active > self.cooldown:
            return 0
        if self.one_series and len(view.reading.engines) > 1:
            return view.desired
        near = abs(total / (self.target * view.desired) - 1) <= 0.1
        wanted = max(view.desired if near else math.ceil(total / self.target), 1, self.min_replicas)
        self.recommended.append((view.now, wanted))
        while self.recommended[0][0] < view.now - self.down_window:
            self.recommended.popleft()
        if wanted < view.desired:
            return min(view.desired, max(count for _, count in self.recommended))
        return self._limited(wanted, view) if wanted > view.desired else wanted

    def _limited(self, wanted: int, view: View) -> int:
        while self.added and self.added[0][0] <= view.now - 15.0:
            self.added.popleft()
        before = view.desired - sum(count for _, count in self.added)
        wanted = min(wanted, max(before + 4, before * 2, view.desired))
        if wanted > view.desired:
            self.added.append((view.now, wanted - view.desired))
        return wanted


class Kpa:
    """Knative: concurrency averaged over 60 s, or over 6 s while that calls for twice what is ready."""

    period = 2.0
    scrape = 1.0
    max_replicas = MAX_REPLICAS
    wakes = True
    stable, panic, grace = 60.0, 6.0, 30.0

    def __init__(self, target: float, *, min_replicas: int = 1) -> None:
        self.target, self.min_replicas = target, min_replicas
        self.history: deque[tuple[float, float]] = deque()
        self.panic_at: float | None = None
        self.panic_most = 0
        self.idle_since: float | None = None

    def decide(self, view: View) -> int:
        now = view.now
        self.history.append((now, view.in_flight_seconds))
        while len(self.history) > 2 and self.history[1][0] <= now - self.stable:
            self.history.popleft()
        if len(self.history) < 2:
            return view.desired
        ready = max(1, view.ready)
        stable, panic = self._wanted(now, self.stable), self._wanted(now, self.panic)
        if panic / ready >= 2:
            self.panic_at = now
        elif self.panic_at is not None and now - self.panic_at > self.stable:
            self.panic_at, self.panic_most = None, 0
        wanted = min(max(stable, ready // 2), 1000 * ready)
        if self.panic_at is not None:
            self.panic_most = wanted = max(wanted, min(max(panic, ready // 2), 1000 * ready), self.panic_most)
        if wanted > 0:
            self.idle_since = None
        else:
            self.idle_since = now if self.idle_since is None else self.idle_since
            wanted = 1 if now - self.idle_since < self.grace else 0
        return 0 if view.desired == 0 and view.held == 0 else wanted

    def _wanted(self, now: float, window: float) -> int:
        time, seconds = next(entry for entry in self.history if entry[0] >= now - window or entry is self.history[-1])
        if time >= now:
            time, seconds = self.history[-2]
        average = (self.history[-1][1] - seconds) / (now - time)
        return math.ceil(average / self.target - 1e-9)


class KubeAi:
    """Active requests averaged over ten minutes; down after three lower answers in a row."""

    period = 10.0
    scrape = 0.0
    max_replicas = MAX_REPLICAS
    wakes = True

    def __init__(self, target: float, *, min_replicas: int = 1) -> None:
        self.target, self.min_replicas = target, min_replicas
        self.window: deque[float] = deque([0.0] * 60, maxlen=60)
        self.lower = 0

    def decide(self, view: View) -> int:
        self.window.append(view.reading.in_flight)
        wanted = max(math.ceil(sum(self.window) / len(self.window) / self.target), self.min_replicas)
        if wanted >= view.desired:
            self.lower = 0
        elif self.lower < 3:
            self.lower += 1
            return view.desired
        return wanted


class RayServe:
    """Ongoing requests averaged over 30 s; up after 30 s and down after 600 s of the same wish."""

    period = 1.0
    scrape = 0.0
    max_replicas = MAX_REPLICAS
    wakes = True

    def __init__(self, target: float, *, min_replicas: int = 1) -> None:
        self.target, self.min_replicas = target, min_replicas
        self.history: deque[tuple[float, float]] = deque()
        self.streak = 0

    def decide(self, view: View) -> int:
        self.history.append((view.now, view.reading.in_flight))
        while self.history[0][0] < view.now - 30.0:
            self.history.popleft()
        ongoing = sum(count for _, count in self.history) / len(self.history)
        if view.desired == 0:
            return 1 if ongoing > 0 or view.held else 0
        wanted = max(self.min_replicas, min(self.max_replicas, math.ceil(ongoing / self.target)))
        if wanted > view.desired:
            self.streak = max(0, self.streak) + 1
            if self.streak <= 30:
                return view.desired
        elif wanted < view.desired:
            self.streak = min(0, self.streak) - 1
            if self.streak >= -600:
                return view.desired
            wanted = wanted if view.desired == 1 else max(1, wanted)
        self.streak = 0
        return wanted


class Wva:
    """llm-d's saturation analysis, on requests in place of tokens: capacity is what ran when a queue was seen."""

    period = 30.0
    scrape = 15.0
    max_replicas = MAX_REPLICAS
    wakes = True

    def __init__(self, up: float, *, min_replicas: int = 1) -> None:
        self.up, self.down, self.min_replicas = up, up * 0.82, min_replicas
        self.saturated: deque[float] = deque(maxlen=10)

    def decide(self, view: View) -> int:
        if view.desired == 0:
            return 1 if view.held else 0
        for running, waiting in view.reading.engines.values():
            if waiting >= 5 and running > 0:
                self.saturated.append(running)
        capacity = max(1.0, sum(self.saturated) / len(self.saturated)) if self.saturated else 32.0
        demand = view.reading.in_flight
        required = demand / self.up - view.desired * capacity
        spare = view.ready * capacity - demand / self.down
        if required > 0:
            return view.desired + math.ceil(required / capacity)
        if spare >= capacity and view.ready == view.desired:
            return max(1, self.min_replicas, view.desired - int(spare // capacity))
        return view.desired
