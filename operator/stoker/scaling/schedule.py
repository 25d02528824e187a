"""Bounds that depend on the hour: what a schedule allows now, and the policy's whole specification for this moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from stoker.api.autoscaling import DAYS, AutoscalingSchedule, AutoscalingSpec
from stoker.errors import Stalled
from stoker.scaling.spec import Autoscaling


def check_schedules(spec: AutoscalingSpec, where: str) -> None:
    """Refuse a time zone that nobody knows; no CEL rule can."""
    for schedule in spec.schedules:
        if _zone(schedule) is None:
            raise Stalled(
                "UnknownTimeZone",
                f"{where}: autoscaling.schedules names the time zone {schedule.time_zone!r}, which does not exist: "
                "write it as in Europe/Berlin",
            )


def bounds_at(spec: AutoscalingSpec, now: float) -> tuple[int, int]:
    """Fewest and most replicas at a Unix time."""
    active = [schedule for schedule in spec.schedules if _applies(schedule, now)]
    floors = [schedule.min_replicas for schedule in active if schedule.min_replicas is not None]
    ceilings = [schedule.max_replicas for schedule in active if schedule.max_replicas is not None]
    most = min(ceilings, default=spec.max_replicas)
    return min(max(floors, default=spec.min_replicas), most), most


def build_policy(spec: AutoscalingSpec, slots: int, now: float) -> Autoscaling:
    """What the user said, over the policy's own defaults; the engine's limit is known, so it need not be learned."""
    least, most = bounds_at(spec, now)
    said = {
        "queue_wait_seconds": spec.queue_wait_seconds,
        "backlog_seconds": spec.backlog_seconds,
        "cold_start_penalty_seconds": spec.cold_start_penalty_seconds,
        "min_hold_seconds": spec.min_hold_seconds,
        "max_hold_seconds": spec.max_hold_seconds,
        "initial_hold_seconds": spec.initial_hold_seconds,
    }
    given = {name: float(value) for name, value in said.items() if value is not None}
    usual = Autoscaling(max_replicas=1)
    # One of the two holds may contradict the other's default: the one that was said wins.
    if "min_hold_seconds" in given:
        given.setdefault("max_hold_seconds", max(usual.max_hold_seconds, given["min_hold_seconds"]))
    elif "max_hold_seconds" in given:
        given["min_hold_seconds"] = min(usual.min_hold_seconds, given["max_hold_seconds"])
    return Autoscaling(
        max_replicas=most, min_replicas=least, target_inflight=min(spec.target_inflight or slots, slots), **given
    )


def _applies(schedule: AutoscalingSchedule, now: float) -> bool:
    zone = _zone(schedule)
    if zone is None:
        return False
    local = datetime.fromtimestamp(now, zone)
    minute, today = local.hour * 60 + local.minute, DAYS[local.weekday()]
    yesterday = DAYS[(local - timedelta(days=1)).weekday()]
    start, end, days = _minutes(schedule.start), _minutes(schedule.end), schedule.days or DAYS
    if start < end:
        return today in days and start <= minute < end
    return (today in days and minute >= start) or (yesterday in days and minute < end)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _zone(schedule: AutoscalingSchedule) -> ZoneInfo | None:
    try:
        return ZoneInfo(schedule.time_zone)
    except (KeyError, ValueError, OSError):
        # ZoneInfoNotFoundError is a KeyError; a folder of the database, such as Europe, is an OSError.
        return None
