"""What the operator counts about itself; served at /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# Twice the lines for times that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

RECONCILES = Counter("stoker_reconcile", "Reconciles by kind and how they ended.", ["kind", "result"])
DURATION = Histogram(
    "stoker_reconcile_duration_seconds",
    "Time from taking an object from the queue until its status is written.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
QUEUE_DEPTH = Gauge("stoker_queue_depth", "Objects waiting to be reconciled now.")
QUEUE_RUNNING = Gauge("stoker_queue_running", "Objects being reconciled.")
REQUESTS = Counter(
    "stoker_api_requests",
    "Requests to the API server by verb, resource and status (0: no answer).",
    ["verb", "resource", "code"],
)
WRITES = Counter(
    "stoker_api_writes", "Writes to the API server by verb and resource, leases included.", ["verb", "resource"]
)
LEADING = Gauge("stoker_leader", "1 while this process is the leader.")
SCALING_ROUND = Histogram(
    "stoker_autoscaling_round_seconds",
    "How long a round of the autoscaler over all models took.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4),
)
SCALING_PERIOD = Histogram(
    "stoker_autoscaling_period_seconds",
    "Time from the beginning of a round of the autoscaler to that of the next; two seconds are meant.",
    buckets=(1, 1.5, 1.9, 2.1, 2.5, 3, 5, 10),
)
EVENTS_DROPPED = Gauge("stoker_events_dropped", "Kubernetes Events not posted because too many came at once.")

_READS = frozenset({"get", "list", "discover"})


def count_request(verb: str, resource: str, status: int) -> None:
    """Count one request to the API server."""
    REQUESTS.labels(verb, resource, str(status)).inc()
    if verb not in _READS and 200 <= status < 300:
        WRITES.labels(verb, resource).inc()
