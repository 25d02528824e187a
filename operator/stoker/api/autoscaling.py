"""The parts of a ModelDeployment that say how it scales, and how requests wait for a model that has no replica."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.api.base import ApiModel, Cel, StatusModel

Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ClockTime = Annotated[str, Field(max_length=5, pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
Seconds = Annotated[int, Field(ge=1, le=86400)]


class AutoscalingSchedule(ApiModel):
    """Other bounds at certain hours of the week."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel("has(self.minReplicas) || has(self.maxReplicas)", "a schedule needs minReplicas, maxReplicas or both"),
        Cel(
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas of a schedule must not be above its maxReplicas",
        ),
        Cel("self.start != self.end", "start and end must differ: leave both away for whole days"),
    )

    time_zone: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")] = "UTC"
    """Time zone by its IANA name, such as Europe/Berlin; daylight saving time is followed."""
    days: Annotated[list[Day], Field(max_length=7)] = []
    """Days on which it begins. Default: every day."""
    start: ClockTime = "00:00"
    """When it begins, as HH:MM."""
    end: ClockTime = "24:00"
    """When it ends, as HH:MM; before the start means on the next day."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Takes the place of autoscaling.minReplicas. Where several schedules apply, the largest."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Takes the place of autoscaling.maxReplicas. Where several schedules apply, the smallest; it wins over minReplicas."""


class AutoscalingSpec(ApiModel):
    """Replicas by demand. Only maxReplicas has to be given; the rest is learned, or fits as it is."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above maxReplicas",
            field_path=".minReplicas",
        ),
        Cel(
            "!has(self.minHoldSeconds) || !has(self.maxHoldSeconds) || self.minHoldSeconds <= self.maxHoldSeconds",
            "autoscaling.minHoldSeconds must not be above maxHoldSeconds",
        ),
        Cel(
            "!has(self.schedules) || self.schedules.all(s, !has(s.minReplicas) || has(s.maxReplicas) || s.minReplicas <= self.maxReplicas)",
            "minReplicas of a schedule must not be above autoscaling.maxReplicas: give the schedule a maxReplicas, too",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Fewest replicas. 0 lets the model sleep: it costs nothing, and the next request wakes it (see coldStart)."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Most replicas."""
    target_inflight: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Most requests that one replica is believed to work on at once; what it really manages is learned. Default, and upper bound: maxConcurrentRequests."""
    queue_wait_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """How long requests may have to queue. Default: 1; about half of the goal for the first token."""
    backlog_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """In what time new replicas shall clear a queue that is there already. Default: 5."""
    cold_start_penalty_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """Replica-seconds worth paying to avoid one cold start: 100 is thrifty, 900 is quick. Default: 450."""
    min_hold_seconds: Seconds | None = None
    """Shortest time that a replica is kept after it was last needed. Default: 30."""
    max_hold_seconds: Seconds | None = None
    """Longest time that a replica is kept after it was last needed. Default: 1800."""
    initial_hold_seconds: Seconds | None = None
    """That time while nothing is known yet about the pauses in this model's traffic. Default: 300."""
    schedules: Annotated[list[AutoscalingSchedule], Field(max_length=16)] = []
    """Other bounds at certain hours, such as one replica ready in working hours."""


class ColdStart(ApiModel):
    """What happens to requests while the model has no replica."""

    mode: Literal["Hold", "Reject"] = "Hold"
    """Hold: they wait. Reject: 503 at once, with Retry-After. Both wake a model that sleeps."""
    max_wait_seconds: Annotated[int, Field(ge=1, le=3600)] = 600
    """How long a request waits before it is answered 503 with Retry-After."""
    max_held_requests: Annotated[int, Field(ge=1, le=10000)] = 100
    """How many requests wait; the next one is answered 429."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """How often a stream that waits gets a comment, so that nobody on the way takes its connection for dead."""


class LearnedStatus(StatusModel):
    """What was measured of one replica."""

    slots: str | None = None
    """Requests that it effectively works on at once."""
    residence_seconds: str | None = None
    """How long a request is in the engine while nothing queues."""
    cold_start_seconds: int | None = None
    """From its creation to its readiness."""


class AutoscalingStatus(StatusModel):
    """What the autoscaler made of the load; how many replicas it wants stands in status.desiredReplicas."""

    reason: str = ""
    """Why the number is what it is, in one word."""
    message: str = ""
    """The same for people: what changed and why."""
    since: datetime | None = None
    """When the number last changed."""
    learned: LearnedStatus | None = None
    """What was measured of one replica; a number that is new is written after a minute, one that has moved by a fifth after ten."""
    state: str | None = None
    """What a restarted operator goes on from, as JSON; not meant for people."""
