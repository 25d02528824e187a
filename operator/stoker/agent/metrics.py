"""The same series for every engine."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stoker.agent.engine import Sample
from stoker.agent.watch import EngineWatch


class EngineCollector(Collector):
    """Renders the newest sample when asked; what is unknown is absent."""

    def __init__(self, watch: EngineWatch, model: str, engine: str) -> None:
        self._watch = watch
        self._labels = [model, engine]

    def collect(self) -> Iterable[Metric]:
        """One family per series, without a value when there is none."""
        # Too old or not there yet: nothing is known.
        sample = self._watch.sample or Sample(0.0, listening=False, up=False)
        loaded = None if sample.loaded is None else float(sample.loaded)
        gauges = (
            ("up", "Whether the engine answers.", float(sample.up)),
            (
                "model_loaded",
                "Whether the engine says that the model is loaded; absent when it does not answer.",
                loaded,
            ),
            ("requests_running", "Requests the engine works on; absent when unknown.", sample.running),
            (
                "requests_waiting",
                "Requests that wait inside the engine; absent when unknown.",
                sample.waiting,
            ),
            ("kv_cache_used_ratio", "Share of the attention cache in use; absent when unknown.", sample.kv_cache_used),
        )
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(f"stoker_engine_{name}", text, labels=["model", "engine"])
            if value is not None:
                gauge.add_metric(self._labels, value)
            yield gauge
        counters = (
            ("prompt_tokens", "Prompt tokens since the engine started.", sample.prompt_tokens),
            ("completion_tokens", "Generated tokens since the engine started.", sample.completion_tokens),
        )
        for name, text, value in counters:
            counter = CounterMetricFamily(f"stoker_engine_{name}", text, labels=["model", "engine"])
            if value is not None:
                counter.add_metric(self._labels, value)
            yield counter
        histograms = (
            ("time_to_first_token_seconds", "From a request's arrival to its first token.", sample.time_to_first_token),
            ("inter_token_latency_seconds", "Between one token and the next.", sample.inter_token_latency),
        )
        for name, text, seen in histograms:
            if seen is None:
                # A histogram without values is no histogram; engines that have none show none.
                continue
            histogram = HistogramMetricFamily(f"stoker_engine_{name}", text, labels=["model", "engine"])
            histogram.add_metric(self._labels, list(seen.buckets), seen.total)
            yield histogram
        drains = GaugeMetricFamily(
            "stoker_agent_drains", "Calls of /drain that are waiting.", labels=["model", "engine"]
        )
        drains.add_metric(self._labels, float(self._watch.drains))
        yield drains


def build_registry(watch: EngineWatch, model: str, engine: str) -> CollectorRegistry:
    """Without prometheus-client's process series, which read /proc at every scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(watch, model, engine))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text format, version 0.0.4, which every scraper reads."""
    return generate_latest(registry)
