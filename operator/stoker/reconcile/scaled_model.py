"""One model that scales itself: what was learned, remembered and decided, and what of it has been told."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from stoker.api.autoscaling import AutoscalingStatus, LearnedStatus
from stoker.api.model_deployment import ModelDeployment
from stoker.api.observed import ObservedPod, ObservedWorkload
from stoker.scaling import Autoscaling, EngineLoad, GatewayLoad, Learned, Memory, Replicas, Sample
from stoker.scaling.record import Record, make_record
from stoker.scaling.state import Level

LOG_LENGTH = 50
# What was not known before is told soon, other values of it seldom: they are measured over thirty requests, by which even
# traffic's residence varies by some 18 %.
LEARNED_FIRST_SECONDS = 60.0
LEARNED_EVERY_SECONDS = 600.0
LEARNED_MOVED = 0.2
# What stands in the way is told when it lasts, and that it is over, too; a single time-out is not worth a write.
TROUBLE_SECONDS = {"MetricsStale": 30.0, "Unschedulable": 4.0, "AtMaximum": 10.0}
# Load at the edge of what is allowed goes to and fro all day.
CLEAR_SECONDS = {"MetricsStale": 10.0, "Unschedulable": 10.0, "AtMaximum": 60.0}
# Kept over a restart: enough to hold what is there, small enough for a status.
_KEPT_LEVELS = 64
_KEPT_GAPS = 10


@dataclass
class ScaledModel:
    """Kept between decisions; ``status`` is what the ModelDeployment tells, which changes far more rarely."""

    desired: int
    fingerprint: str
    """Of model, engine and devices: what was learned of one says nothing of another."""
    learned: Learned = field(default_factory=Learned)
    memory: Memory = field(default_factory=Memory)
    status: AutoscalingStatus = field(default_factory=AutoscalingStatus)
    log: deque[Record] = field(default_factory=lambda: deque(maxlen=LOG_LENGTH))
    newest: Record | None = None
    told_at: float = float("-inf")
    trouble: str = ""
    trouble_since: float = 0.0
    changed_at: float = 0.0
    starting: set[str] = field(default_factory=set)
    """Pods that were seen before they were ready, and had a place at once."""
    shrinking: bool = False

    @classmethod
    def restored(cls, model: ModelDeployment, desired: int, fingerprint: str, now: float) -> ScaledModel:
        """Go on from what the status tells; nothing that is there counts as idle for the time that nobody looked."""
        status = model.status.autoscaling or AutoscalingStatus()
        made = cls(desired, fingerprint, status=status, changed_at=now)
        try:
            state = json.loads(status.state or "")
            made.memory = Memory.from_dict(state["memory"])
            if state["of"] == fingerprint:
                made.learned = Learned.from_dict(state["learned"])
        except (ValueError, KeyError, TypeError):
            # None yet, or written by another version: everything that is there counts as needed just now.
            return made
        missing = desired - len(made.memory.levels)
        if missing > 0 and made.memory.time is not None:
            padding = (Level(made.memory.time),) * missing
            made.memory = replace(made.memory, levels=(*made.memory.levels, *padding))
        return made

    def decide(
        self, now: float, samples: tuple[Sample, ...], replicas: Replicas, spec: Autoscaling, *, dry: bool = False
    ) -> Record:
        """Ask the policy. ``dry``: somebody else says how many, but what the traffic teaches is kept."""
        record = make_record(now, samples, replicas, self.learned, self.memory, spec)
        decision = record.decision
        self.learned, self.memory = decision.learned, decision.memory
        if not dry:
            before = self.newest.decision if self.newest else None
            if before is None or (before.reason, before.desired) != (decision.reason, decision.desired):
                self.log.append(record)
            self.newest = record
        return record

    def forget(self, fingerprint: str) -> None:
        """Another model, engine or device: begin to learn anew."""
        self.fingerprint, self.learned = fingerprint, Learned()

    def tell(self, reason: str, message: str, *, now: float, at: datetime, changed: bool) -> None:
        """Put a reason into the status, and with it what was learned and what a restart goes on from."""
        self.status = AutoscalingStatus(
            reason=reason,
            message=message,
            since=at if changed or self.status.since is None else self.status.since,
            learned=_describe(self.learned),
            state=_keep(self.fingerprint, self.learned, self.memory),
        )
        self.told_at = now

    def has_new_reason(self, now: float) -> bool:
        """Whether something stands in the way for long enough to be told, or has gone for as long."""
        if self.newest is None:
            return False
        reason = self.newest.decision.reason
        trouble = reason if reason in TROUBLE_SECONDS else ""
        if trouble != self.trouble:
            self.trouble, self.trouble_since = trouble, now
        lasting = now - self.trouble_since
        if trouble:
            return self.status.reason != trouble and lasting >= TROUBLE_SECONDS[trouble]
        told = self.status.reason
        return not told or (told in CLEAR_SECONDS and lasting >= CLEAR_SECONDS[told])

    def has_learned(self, now: float) -> bool:
        """Whether there is something to tell of what was learned: a number that is new, or one that has moved far."""
        quiet = now - self.told_at
        if quiet < LEARNED_FIRST_SECONDS:
            return False
        pairs = _pairs(self.status.learned, _describe(self.learned))
        if any((told is None) != (known is None) for told, known in pairs):
            return True
        return quiet >= LEARNED_EVERY_SECONDS and any(_moved(told, known) for told, known in pairs)


def observe_replicas(model: ScaledModel, seen: ObservedWorkload, now: float) -> Replicas:
    """The replicas as the cluster has them; notes who is on the way, so that the time of a cold start is known."""
    live = live_pods(seen.pods)
    leaving = any(pod.terminating for pod in seen.pods)
    ready = [pod for pod in live if pod.ready and pod.routable]
    took = tuple(max(0.1, now - pod.created_at) for pod in ready if pod.name in model.starting)
    coming = [pod for pod in live if not pod.ready]
    homeless = [pod for pod in coming if _has_no_place(pod, leaving)]
    pending = [pod for pod in coming if not _has_no_place(pod, leaving)]
    known = {pod.name for pod in coming}
    never_placed = {pod.name for pod in homeless}
    model.starting = (
        model.starting | {pod.name for pod in pending if now - pod.created_at < 10}
    ) & known - never_placed
    missing = max(0, model.desired - len(live))
    refused = missing if seen.deployment is not None and seen.deployment.replica_failure else 0
    since = max(0.0, now - model.changed_at)
    return Replicas(
        desired=model.desired,
        ready=len(ready),
        pending_ages=(*(max(0.0, now - pod.created_at) for pod in pending), *(since for _ in range(missing - refused))),
        unschedulable=len(homeless) + refused,
        rolling_out=len({pod.template_hash for pod in live}) > 1,
        cold_starts=took,
    )


def live_pods(pods: Iterable[ObservedPod]) -> list[ObservedPod]:
    """Those that their ReplicaSet counts: neither asked to go nor ended for good, as evicted ones are."""
    return [pod for pod in pods if not pod.terminating and pod.phase not in ("Succeeded", "Failed")]


def _has_no_place(pod: ObservedPod, leaving: bool) -> bool:
    """A pod that waits for one that still finishes its requests has a place: theirs."""
    words = pod.unschedulable_message
    return bool(words) and not (leaving and "Insufficient" in words)


def build_sample(
    now: float,
    gateways: Mapping[str, GatewayLoad | None],
    pods: Iterable[ObservedPod],
    engines: Mapping[str, EngineLoad | None],
) -> Sample:
    """Ready replicas, and those going away as long as they answer: requests run there, too."""
    loads = {
        pod.name: engines.get(pod.name)
        for pod in pods
        if engines.get(pod.name) is not None or (pod.ready and pod.routable and not pod.terminating)
    }
    return Sample(now, gateways, loads)


def choose_leaving(pods: Iterable[ObservedPod], target: int, engines: Mapping[str, EngineLoad | None]) -> list[str]:
    """Names of the ready pods that are to go, the least busy first; pods that are not ready go by themselves before them."""
    live = live_pods(pods)
    ready = [pod for pod in live if pod.ready]
    surplus = len(live) - target - (len(live) - len(ready))

    def busy(pod: ObservedPod) -> tuple[bool, float, float, str]:
        load = engines.get(pod.name)
        # One that was chosen before stays chosen; of two equals the younger goes, whose cache is colder.
        return pod.routable, load.running + load.waiting if load else float("inf"), -pod.created_at, pod.name

    return [pod.name for pod in sorted(ready, key=busy)[: max(0, surplus)]]


def _describe(learned: Learned) -> LearnedStatus | None:
    if learned == Learned():
        return None
    return LearnedStatus(
        slots=None if learned.slots is None else f"{learned.slots:.1f}",
        residence_seconds=None if learned.residence_seconds is None else f"{learned.residence_seconds:.2f}",
        cold_start_seconds=None if learned.cold_start_seconds is None else max(1, round(learned.cold_start_seconds)),
    )


def _pairs(told: LearnedStatus | None, known: LearnedStatus | None) -> list[tuple[str | int | None, str | int | None]]:
    """Each number as the status tells it, and as it is known now."""
    told, known = told or LearnedStatus(), known or LearnedStatus()
    return [
        (told.slots, known.slots),
        (told.residence_seconds, known.residence_seconds),
        (told.cold_start_seconds, known.cold_start_seconds),
    ]


def _moved(told: str | int | None, known: str | int | None) -> bool:
    if told is None or known is None:
        return told is not known
    before, after = float(told), float(known)
    # Numbers this small are rounded by more than that.
    return abs(after - before) > max(LEARNED_MOVED * before, 0.051)


def _keep(fingerprint: str, learned: Learned, memory: Memory) -> str:
    levels = tuple(Level(round(level.last_needed, 1), level.gaps[-_KEPT_GAPS:]) for level in memory.levels)
    kept = Memory(time=memory.time, levels=levels[:_KEPT_LEVELS])
    state: dict[str, Any] = {"of": fingerprint, "learned": learned.to_dict(), "memory": kept.to_dict()}
    return json.dumps(state, separators=(",", ":"))
