"""What the policy is told: readings of gateways and engines, and the replicas as the cluster has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """One gateway pod's numbers for one model; the totals count since that process started."""

    held: int
    arrivals_total: int
    completions_total: int


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """One ready replica's own numbers."""

    running: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of everybody who knows something about the load; who was asked and did not answer is there as None."""

    time: float
    gateways: Mapping[str, GatewayLoad | None]
    engines: Mapping[str, EngineLoad | None]
    """By pod, ready replicas only."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of one model now."""

    desired: int
    """What was last asked for."""
    ready: int
    pending_ages: tuple[float, ...] = ()
    """Seconds since each replica that is not ready yet was made; those without a place are not among them."""
    unschedulable: int = 0
    """Replicas for which the cluster has no place."""
    rolling_out: bool = False
    """Old and new replicas stand side by side."""
    cold_starts: tuple[float, ...] = ()
    """How long those took that became ready since the last decision, in seconds."""
