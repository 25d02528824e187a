"""Conditions in the form that kstatus, kubectl wait and GitOps tools understand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from stoker.api.base import Condition
from stoker.errors import Stalled, StokerError

# Longer than any message of ours; the kubelet's words can be pages.
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Cause:
    """Why an object is not, or not wholly, as it should be."""

    reason: str
    message: str
    stalled: bool = False
    """Nothing moves until a person changes something; otherwise something is under way."""


@dataclass(frozen=True)
class Verdict:
    """What the conditions shall say."""

    ready: bool
    reason: str
    message: str
    cause: Cause | None = None
    """Shown as Stalled or Reconciling, also beside Ready=True: an old replica may serve while the new one fails."""
    extra: tuple[tuple[str, bool, str, str], ...] = ()
    """Further conditions: (type, status, reason, message)."""


def cause_of(problem: StokerError | None) -> Cause | None:
    """The cause that an error carries."""
    return Cause(problem.reason, problem.message, isinstance(problem, Stalled)) if problem else None


def build_conditions(
    previous: Sequence[Condition], verdict: Verdict, *, generation: int, now: datetime
) -> list[Condition]:
    """All conditions; Reconciling and Stalled are there only while true, and times change only with the status."""
    wanted: list[tuple[str, bool, str, str]] = [
        ("Ready", verdict.ready, verdict.reason, verdict.message),
        *verdict.extra,
    ]
    if verdict.cause is not None:
        kind = "Stalled" if verdict.cause.stalled else "Reconciling"
        wanted.append((kind, True, verdict.cause.reason, verdict.cause.message))
    known = {condition.type: condition for condition in previous}
    return [_condition(known.get(entry[0]), entry, generation, now) for entry in wanted]


def _condition(
    previous: Condition | None, wanted: tuple[str, bool, str, str], generation: int, now: datetime
) -> Condition:
    kind, true, reason, message = wanted
    status: Literal["True", "False"] = "True" if true else "False"
    since = previous.last_transition_time if previous is not None and previous.status == status else now
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 1] + "…"
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=since,
        reason=reason,
        message=message,
    )
