"""What a person may say about scaling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Autoscaling:
    """Bounds and budgets of one model; the defaults are meant to fit every model and engine."""

    max_replicas: int
    min_replicas: int = 1
    """0 lets the model sleep."""
    target_inflight: int = 32
    """Most requests of which one replica is believed to work at once; what it really manages is learned below this.

    Where the engine's own limit is known and lower, pass that: it saves the first queue that learning would take.
    """
    queue_wait_seconds: float = 1.0
    """How long a request may have to queue; about half of the goal for the first token."""
    backlog_seconds: float = 5.0
    """In what time the replicas asked for shall clear a queue that is already there."""
    cold_start_penalty_seconds: float = 450.0
    """Replica-seconds worth paying to avoid one cold start: more keeps idle replicas longer."""
    min_hold_seconds: float = 30.0
    max_hold_seconds: float = 1800.0
    initial_hold_seconds: float = 300.0
    """How long an idle replica is kept before anything is known about the gaps in this model's traffic."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(f"minReplicas {self.min_replicas} and maxReplicas {self.max_replicas} leave no choice")
        if not 0 < self.min_hold_seconds <= self.max_hold_seconds:
            raise ValueError(f"minHoldSeconds {self.min_hold_seconds} is above maxHoldSeconds {self.max_hold_seconds}")
        if min(self.target_inflight, self.queue_wait_seconds, self.backlog_seconds, self.initial_hold_seconds) <= 0:
            raise ValueError("targetInflight, queueWaitSeconds, backlogSeconds and initialHoldSeconds are above zero")
