"""Why a container ended: by its exit code, by whether it had served, and by its last words."""

from __future__ import annotations

from stoker.api.observed import ObservedContainer, ObservedPod
from stoker.status.conditions import Cause
from stoker.status.engine_faults import find_fault
from stoker.status.workload import Workload

# SIGKILL and SIGTERM: how the kubelet ends a container whose probe ran out.
_ENDED_FROM_OUTSIDE = frozenset({137, 143})
# Of what a process said last the end is shown; the conditions of an object are read on a screen.
_SHOWN = 512
# A startup probe that runs out ends the container at the deadline, less a period or two.
_DEADLINE_SHARE = 0.8
# Kubernetes' times are whole seconds, and a kubelet asks for the time twice.
_MARGIN_SECONDS = 1.0


def has_crashed(container: ObservedContainer) -> bool:
    """Stays true while a restarted container has not proved itself, so that the reason does not flicker."""
    if container.state == "terminated":
        return container.exit_code != 0
    return container.restarts > 0 and not container.started


def explain_crash(workload: Workload, pod: ObservedPod, container: ObservedContainer) -> Cause:
    """The cause that a person can do something about."""
    ended = container.state == "terminated"
    reason = container.reason if ended else container.last_reason
    code = container.exit_code if ended else container.last_exit_code
    words = (container.message if ended else container.last_message).strip()
    is_main = container.name == workload.main
    subject = f"Container {container.name} of {workload.kind} {workload.name}"
    fault = find_fault(words) if is_main and workload.subject == "Engine" else None
    if reason == "OOMKilled" or (fault and fault.reason == "EngineOutOfMemory"):
        return Cause(
            f"{workload.subject}OutOfMemory",
            f"{subject} ran out of memory: {workload.memory_advice}.{_said(words)}",
            stalled=True,
        )
    if fault:
        return Cause(
            fault.reason, f"{subject} ended: {fault.advice}.{_said(words, fault.words.search(words))}", stalled=True
        )
    if (
        is_main
        and code in _ENDED_FROM_OUTSIDE
        and not _was_serving(pod, container)
        and _took_too_long(workload, container)
    ):
        return Cause(
            "StartupDeadlineExceeded",
            f"{workload.kind} {workload.name} was ended after {workload.startup_deadline_seconds} s, before it was loaded: raise "
            f"spec.startupDeadlineSeconds of its InferenceEngine, or take a smaller model.{_said(words)}",
            stalled=True,
        )
    logs = f"see kubectl logs {workload.noun} -c {container.name} --previous"
    if is_main and _has_served(pod):
        ran = f" after it had run for {_duration(container.ran_seconds)}" if container.ran_seconds is not None else ""
        return Cause(
            f"{workload.subject}CrashedServing",
            f"{subject} had served, ended with exit code {code}{ran}, and has not come back yet (start {container.restarts + 1}): "
            f"{logs}.{_said(words)}",
            stalled=True,
        )
    return Cause(
        f"{workload.subject}Crashed",
        f"{subject} ended with exit code {code} and has been started {container.restarts + 1} times: {logs}.{_said(words)}",
        stalled=True,
    )


def _took_too_long(workload: Workload, container: ObservedContainer) -> bool:
    deadline, ran = workload.startup_deadline_seconds, container.ran_seconds
    return deadline is not None and (ran is None or ran >= _DEADLINE_SHARE * deadline)


def _has_served(pod: ObservedPod) -> bool:
    """A pod is not ready from its beginning; one that became so later had been ready."""
    since, began = pod.unready_since, pod.started_at
    return since is not None and began is not None and since > began + _MARGIN_SECONDS


def _was_serving(pod: ObservedPod, container: ObservedContainer) -> bool:
    """Whether the run that ended had been ready, and not only an earlier one."""
    began = container.run_started_at
    return _has_served(pod) and began is not None and pod.unready_since is not None and pod.unready_since > began


def _said(words: str, found: object = None) -> str:
    """The end of the last words, or the place where the cause stands."""
    if not words:
        return ""
    start = max(0, len(words) - _SHOWN)
    position = getattr(found, "start", lambda: start)()
    if position < start:
        start = words.rfind("\n", 0, position) + 1
    return f" It said last: {words[start : start + _SHOWN].strip()}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
