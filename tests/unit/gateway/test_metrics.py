from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stoker.gateway.metrics import LATENCY_BUCKETS, DecisionMetrics


def exposition(metrics: DecisionMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


@pytest.mark.parametrize("seconds", [0.0, 0.000015, 0.000017, 0.00004, 0.001, 0.1, 0.5, 100.0])
def test_a_latency_is_counted_in_the_first_bucket_that_holds_it(seconds: float) -> None:
    metrics = DecisionMetrics()
    metrics.count("allowed", "qwen", seconds)
    text = exposition(metrics)
    for bound in LATENCY_BUCKETS:
        expected = 1.0 if seconds < bound else 0.0
        assert f'stoker_gateway_decision_seconds_bucket{{le="{bound:.6f}"}} {expected}\n' in text
    assert 'stoker_gateway_decision_seconds_bucket{le="+Inf"} 1.0' in text
    assert "stoker_gateway_decision_seconds_count 1.0" in text


def test_decisions_and_configuration_are_shown() -> None:
    metrics = DecisionMetrics()
    metrics.count("allowed", "qwen", 0.1)
    metrics.count("allowed", "qwen", 0.1)
    metrics.configured(3, models=5, ready_models=2, keys=7)
    text = exposition(metrics)
    assert 'stoker_gateway_decisions_total{model="qwen",reason="allowed"} 2.0' in text
    for line in ("config_generation 3.0", "models 5.0", "models_ready 2.0", "keys 7.0"):
        assert f"stoker_gateway_{line}\n" in text
