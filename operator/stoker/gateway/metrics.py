"""Counters of the hot path: a dictionary and a list while counting, Prometheus' own form only when somebody asks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS = tuple((1 << power) * 1e-6 for power in range(4, 18))
"""Upper bounds in seconds: 16 µs, doubling up to 131 ms."""


class DecisionMetrics(Collector):
    """What was decided, for whom, how fast. Labels are bounded: reasons are ours, models are the published ones."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str]] = Counter()
        """By reason and served model name; no model where the name was not a published one."""
        self._latency = [0] * (len(LATENCY_BUCKETS) + 1)
        self._latency_sum = 0.0
        self.generation = 0
        self.loaded_at = 0.0
        self.running: Callable[[], Iterable[tuple[str, int, int]]] = tuple
        """Of each model: name, requests that wait, requests at its engines."""
        self.left_out: Callable[[], Iterable[tuple[str, int]]] = tuple
        """Of each model: name, ready replicas that are left out."""
        self.models = 0
        self.ready_models = 0
        self.keys = 0

    def count(self, reason: str, model: str, seconds: float) -> None:
        """One decision was made."""
        self.decisions[reason, model] += 1
        self._latency_sum += seconds
        # The bit length of the time in units of 16 µs is the bucket's place.
        place = int(seconds * 62_500).bit_length()
        self._latency[place if place < len(LATENCY_BUCKETS) else -1] += 1

    def count_late(self, reason: str, model: str) -> None:
        """A request that was held has its answer."""
        self.decisions[reason, model] += 1

    def configured(self, generation: int, models: int, ready_models: int, keys: int) -> None:
        """A configuration was taken over."""
        self.generation, self.models, self.ready_models, self.keys = generation, models, ready_models, keys
        self.loaded_at = time.time()

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        decisions = CounterMetricFamily(
            "stoker_gateway_decisions", "Decisions by reason and model.", labels=("reason", "model")
        )
        for (reason, model), count in list(self.decisions.items()):
            decisions.add_metric((reason, model), count)
        yield decisions
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip(LATENCY_BUCKETS, self._latency, strict=False):
            total += count
            buckets.append((format(bound, ".6f"), total))
        buckets.append(("+Inf", total + self._latency[-1]))
        latency = HistogramMetricFamily(
            "stoker_gateway_decision_seconds", "Time from the whole question to the answer."
        )
        latency.add_metric((), buckets, self._latency_sum)
        yield latency
        held = GaugeMetricFamily("stoker_gateway_held", "Requests that wait for a place.", labels=("model",))
        in_flight = GaugeMetricFamily("stoker_gateway_in_flight", "Requests at engines.", labels=("model",))
        for model, waiting, running in self.running():
            held.add_metric((model,), waiting)
            in_flight.add_metric((model,), running)
        yield held
        left_out = GaugeMetricFamily(
            "stoker_gateway_replicas_left_out",
            "Ready replicas that get no requests: they cannot be reached, or break off their answers.",
            labels=("model",),
        )
        for model, count in self.left_out():
            left_out.add_metric((model,), count)
        yield left_out
        yield in_flight
        yield GaugeMetricFamily("stoker_gateway_config_generation", "Configurations taken over.", self.generation)
        yield GaugeMetricFamily(
            "stoker_gateway_config_loaded_timestamp_seconds", "When the configuration last changed.", self.loaded_at
        )
        yield GaugeMetricFamily("stoker_gateway_models", "Published models.", self.models)
        yield GaugeMetricFamily(
            "stoker_gateway_models_ready", "Published models with a ready replica.", self.ready_models
        )
        yield GaugeMetricFamily("stoker_gateway_keys", "Key hashes that are let in.", self.keys)
