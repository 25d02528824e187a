"""What the autoscaler tells about itself: metrics, and the latest decisions with everything they were made from."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stoker.cluster.cache import Key
from stoker.reconcile.scaled_model import ScaledModel
from stoker.reconcile.scaling_loop import ScalingLoop

_PER_MODEL = {
    "desired_replicas": "Replicas that the autoscaler asks for.",
    "ready_replicas": "Replicas that serve.",
    "held_requests": "Requests that gateways hold.",
    "running_requests": "Requests in engines that tell their load.",
    "silent_sources": "Gateways and replicas that did not tell their load.",
}


def explain(loop: ScalingLoop, key: Key) -> dict[str, object] | None:
    """The latest decision, and those of the last that changed the number or the reason; each can be made again from this."""
    state = loop.models.get(key)
    if state is None:
        return None
    return {
        "namespace": key[0],
        "name": key[1],
        "desired": state.desired,
        "reason": state.status.reason,
        "message": state.status.message,
        "newest": state.newest.to_dict() if state.newest else None,
        "decisions": [record.to_dict() for record in state.log],
    }


class ScalingCollector(Collector):
    """Read from the loop when somebody scrapes, so a model that is gone leaves no series behind."""

    def __init__(self, loop: ScalingLoop) -> None:
        self._loop = loop

    def describe(self) -> Iterator[Metric]:
        """Nothing is collected to find out what there is."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All series of this moment."""
        labels = ["namespace", "model"]
        families = {
            name: GaugeMetricFamily(f"stoker_autoscaling_{name}", words, labels=labels)
            for name, words in _PER_MODEL.items()
        }
        reasons = GaugeMetricFamily(
            "stoker_autoscaling_reason", "1 for the reason of the latest decision.", labels=[*labels, "reason"]
        )
        for key, state in self._loop.models.items():
            for name, value in _numbers(state).items():
                families[name].add_metric(key, value)
            reasons.add_metric((*key, _reason(state)), 1)
        yield from families.values()
        yield reasons
        words = "Gateway pods that tell wake-ups at once."
        yield GaugeMetricFamily("stoker_autoscaling_gateway_streams", words, self._loop.connected_gateways)


def _reason(state: ScaledModel) -> str:
    return state.newest.decision.reason if state.newest else state.status.reason


def _numbers(state: ScaledModel) -> dict[str, float]:
    record = state.newest
    sample = record.samples[-1] if record and record.samples else None
    gateways = [load for load in sample.gateways.values() if load] if sample else []
    engines = [load for load in sample.engines.values() if load] if sample else []
    asked = len(sample.gateways) + len(sample.engines) if sample else 0
    return {
        "desired_replicas": state.desired,
        "ready_replicas": record.replicas.ready if record else 0,
        "held_requests": sum(load.held for load in gateways),
        "running_requests": sum(load.running for load in engines),
        "silent_sources": asked - len(gateways) - len(engines),
    }
