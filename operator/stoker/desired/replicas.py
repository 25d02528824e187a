"""How many replicas a ModelDeployment has, who decides it, and what that means to callers."""

from __future__ import annotations

from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import OVERRIDE_ANNOTATION
from stoker.errors import Stalled

MOST_REPLICAS = 1000
# Told to gateways, each change of whose configuration is a write: in steps, rounded up, so that it changes rarely.
_COLD_STARTS = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 450, 600, 900, 1200, 1800, 3600)


def read_override(deployment: ModelDeployment) -> int | None:
    """The number in the annotation for incidents; None where there is none."""
    text = deployment.metadata.annotations.get(OVERRIDE_ANNOTATION)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_REPLICAS):
        raise Stalled(
            "InvalidOverride",
            f"ModelDeployment {deployment.metadata.name}: annotation {OVERRIDE_ANNOTATION} is {text!r}, not a number from 0 to "
            f"{MOST_REPLICAS}: correct it, or remove it",
        )
    return int(text)


def decide_replicas(deployment: ModelDeployment, scaled: int | None, present: int | None) -> int:
    """Replicas wanted now: suspended, overridden, scaled by load, or as the user says.

    ``scaled`` is what the autoscaler asks for, which follows an override by itself, so that who goes leaves routing first;
    before it has spoken, what is ``present`` stays within the bounds.
    """
    spec = deployment.spec
    if spec.suspend:
        return 0
    override = read_override(deployment)
    if spec.autoscaling is not None and scaled is not None:
        return scaled
    if override is not None:
        return override
    if spec.autoscaling is None:
        return spec.replicas
    least, most = spec.autoscaling.min_replicas, spec.autoscaling.max_replicas
    return least if present is None else min(max(least, present), most)


def most_replicas(deployment: ModelDeployment) -> int:
    """How many there may ever be at a time."""
    scaling = deployment.spec.autoscaling
    if scaling is None:
        return deployment.spec.replicas
    return max([scaling.max_replicas, *(schedule.max_replicas or 0 for schedule in scaling.schedules)])


def is_stopped(deployment: ModelDeployment) -> bool:
    """A person wants no replica; no request changes that."""
    try:
        override = read_override(deployment)
    except Stalled:
        override = None
    if deployment.spec.suspend or override is not None:
        return deployment.spec.suspend or override == 0
    return deployment.spec.autoscaling is None and deployment.spec.replicas == 0


def is_sleeping(deployment: ModelDeployment) -> bool:
    """It has scaled itself to zero; a request wakes it."""
    scales = deployment.spec.autoscaling is not None
    return scales and deployment.status.desired_replicas == 0 and not is_stopped(deployment)


def expected_cold_start(deployment: ModelDeployment) -> int | None:
    """Seconds until a new replica serves, as told to callers; None while nobody knows."""
    scaling = deployment.status.autoscaling
    learned = scaling.learned.cold_start_seconds if scaling and scaling.learned else None
    if learned is None:
        return None
    return next((step for step in _COLD_STARTS if step >= learned), _COLD_STARTS[-1])
