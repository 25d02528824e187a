"""What Envoy counts of requests that an engine has served, by model, and how it becomes part of /metrics.

Counted where the numbers are: Python sees no answer, and would take longer to read a log line than to decide.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

PREFIX = "served"
QUERY = f"/stats/prometheus?filter=^{PREFIX}%5C."
ENVOYS_NAME, OUR_NAME = f"envoy_{PREFIX}_".encode(), b"stoker_gateway_served_"


def stats_log(model: str, tokens: dict[str, str], only: Document) -> Document:
    """An access logger that writes nothing and counts: requests, times and tokens, by the model's served name.

    Names are the policy's, so there are as many series as models were published while Envoy ran.
    """
    tag = {"name": "model", "value_format": model}
    code = {"name": "code", "value_format": "%RESPONSE_CODE%"}
    counters: list[Document] = [{"stat": {"name": "requests_total", "tags": [tag, code]}, "value_fixed": 1}]
    counters += [
        {"stat": {"name": f"{name}_tokens_total", "tags": [tag]}, "value_format": value}
        for name, value in tokens.items()
    ]
    histograms = [
        {"stat": {"name": f"{name}_milliseconds", "tags": [tag]}, "unit": "Milliseconds", "value_format": value}
        for name, value in (("first_byte", "%RESPONSE_DURATION%"), ("duration", "%DURATION%"))
    ]
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stat_prefix": PREFIX,
            "counters": counters,
            "histograms": histograms,
        },
        "filter": only,
    }


def rename(stats: bytes) -> bytes:
    """Envoy's text in our words."""
    return stats.replace(ENVOYS_NAME, OUR_NAME)
