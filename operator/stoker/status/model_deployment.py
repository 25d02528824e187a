"""Status of a ModelDeployment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from stoker.api.autoscaling import AutoscalingStatus
from stoker.api.model_deployment import DownloadStatus, ModelDeployment, ModelDeploymentStatus
from stoker.api.names import COMPONENT, OVERRIDE_ANNOTATION, OWNER_LABELS
from stoker.api.observed import ObservedWorkload
from stoker.api.resolved import ResolvedModelDeployment
from stoker.engines import engine_of
from stoker.engines.accelerators import device_resource
from stoker.errors import StokerError
from stoker.status.conditions import Cause, Verdict, build_conditions, cause_of
from stoker.status.pods import diagnose, is_download_unknown, slowest_download
from stoker.status.workload import Workload

_NOTHING = ObservedWorkload(deployment=None)


def compute_model_deployment_status(
    deployment: ModelDeployment,
    *,
    resolved: ResolvedModelDeployment | None,
    workload: ObservedWorkload | None,
    problem: StokerError | None,
    gateways: Iterable[tuple[str, str]],
    name_taken: str,
    update_available: str | None,
    scaling: AutoscalingStatus | None = None,
    now: datetime,
) -> ModelDeploymentStatus:
    """Everything that ``kubectl get`` and ``describe`` tell; equal input gives an equal status, so nothing is written."""
    seen = workload or _NOTHING
    published = sorted(f"{namespace}/{name}" for namespace, name in gateways)
    verdict = _judge(deployment, resolved, seen, problem, name_taken, published=bool(published))
    verdict = replace(verdict, extra=(*_fits(resolved), *_scaling(deployment, scaling)))
    previous, observed = deployment.status, seen.deployment
    return ModelDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=observed.replicas if observed else 0,
        ready_replicas=observed.ready_replicas if observed else 0,
        desired_replicas=_wanted(deployment, resolved),
        selector=f"{COMPONENT}=engine,{OWNER_LABELS['ModelDeployment']}={deployment.metadata.name}",
        engine=_engine_name(deployment, resolved),
        engine_reason=resolved.chosen.engine_reason if resolved else None,
        image=resolved.chosen.engine_image if resolved else previous.image,
        update_available=update_available,
        model=resolved.model if resolved else previous.model,
        fit=resolved.fit if resolved else previous.fit,
        download=_download(previous, seen),
        autoscaling=scaling if deployment.spec.autoscaling else None,
        engine_key=_asks_for_key(resolved, previous, verdict),
        endpoint=_endpoint(resolved) if resolved else previous.endpoint,
        gateways=published[:64],
        conditions=build_conditions(previous.conditions, verdict, generation=deployment.metadata.generation, now=now),
    )


def _download(previous: ModelDeploymentStatus, seen: ObservedWorkload) -> DownloadStatus | None:
    if is_download_unknown(seen.pods):
        return previous.download
    download = slowest_download(seen.pods)
    if download is None:
        return None
    return DownloadStatus(
        file=download.file or None, completed_bytes=download.completed_bytes, total_bytes=download.total_bytes
    )


def _asks_for_key(resolved: ResolvedModelDeployment | None, previous: ModelDeploymentStatus, verdict: Verdict) -> bool:
    """While pods are replaced the old ones still ask; the new ones do not mind a key."""
    wanted = resolved is not None and resolved.engine.spec.engine_auth == "GeneratedKey"
    return wanted or (previous.engine_key and (resolved is None or verdict.cause is not None))


def _engine_name(deployment: ModelDeployment, resolved: ResolvedModelDeployment | None) -> str | None:
    if deployment.spec.engine_ref:
        return deployment.spec.engine_ref.name
    # While something is wrong the pods go on where they are.
    return resolved.engine.metadata.name if resolved else deployment.status.engine


def _judge(
    deployment: ModelDeployment,
    resolved: ResolvedModelDeployment | None,
    seen: ObservedWorkload,
    problem: StokerError | None,
    name_taken: str,
    *,
    published: bool,
) -> Verdict:
    name = deployment.metadata.name
    wanted = _wanted(deployment, resolved)
    cause = cause_of(problem)
    if cause is None and name_taken:
        cause = Cause("ServedNameTaken", name_taken, stalled=True)
    if cause is None:
        cause = _as_told(deployment.status, seen, diagnose(_describe(deployment, resolved), seen, wanted))
    serving = seen.deployment.ready_replicas if seen.deployment else 0
    unreachable = bool(name_taken) and not published
    if wanted == 0 and problem is None and not unreachable:
        return _at_rest(deployment, cause)
    if serving > 0 and not unreachable:
        words = f"{serving} of {wanted} replicas serve {deployment.served_name}"
        if OVERRIDE_ANNOTATION in deployment.metadata.annotations and problem is None:
            words += f"; {wanted} is what annotation {OVERRIDE_ANNOTATION} asks for"
        return Verdict(True, "Serving", words, cause)
    if cause is None:
        cause = Cause("EngineStarting", f"No replica of ModelDeployment {name} serves yet")
    return Verdict(False, cause.reason, cause.message, cause)


def _as_told(previous: ModelDeploymentStatus, seen: ObservedWorkload, cause: Cause | None) -> Cause | None:
    """What another operator said of a download holds until this one has asked: otherwise its progress would fall back."""
    if cause is None or previous.download is None or not is_download_unknown(seen.pods):
        return cause
    told = next((one for one in previous.conditions if (one.type, one.reason) == ("Reconciling", cause.reason)), None)
    return cause if told is None else replace(cause, message=told.message)


def _wanted(deployment: ModelDeployment, resolved: ResolvedModelDeployment | None) -> int:
    if resolved is not None:
        return resolved.replicas
    # What cannot be resolved stays as it is; of a model that scales itself that is what was last asked for.
    return deployment.status.desired_replicas if deployment.spec.autoscaling else deployment.spec.replicas


def _at_rest(deployment: ModelDeployment, cause: Cause | None) -> Verdict:
    """No replica, as wanted: by a person, or because nobody asks."""
    name = deployment.metadata.name
    if deployment.spec.suspend:
        return Verdict(True, "Suspended", f"ModelDeployment {name} is suspended: set spec.suspend to false", cause)
    if OVERRIDE_ANNOTATION in deployment.metadata.annotations:
        words = f"ModelDeployment {name} is stopped by annotation {OVERRIDE_ANNOTATION}: remove it to start the model"
        return Verdict(True, "Stopped", words, cause)
    if deployment.spec.autoscaling is not None:
        return Verdict(True, "Sleeping", f"ModelDeployment {name} sleeps; the next request wakes it", cause)
    return Verdict(True, "Stopped", f"ModelDeployment {name} is stopped: set spec.replicas to start it", cause)


def _scaling(deployment: ModelDeployment, scaling: AutoscalingStatus | None) -> tuple[tuple[str, bool, str, str], ...]:
    """Whether the load is known; while it is not, nothing is scaled down."""
    if deployment.spec.autoscaling is None or scaling is None:
        return ()
    if scaling.reason == "MetricsStale":
        return (("ScalingActive", False, "MetricsStale", scaling.message),)
    return (("ScalingActive", True, "LoadKnown", "Gateways and replicas tell their load"),)


def _describe(deployment: ModelDeployment, resolved: ResolvedModelDeployment | None) -> Workload:
    advice = "raise resources.limits.memory, or lower spec.contextLength or spec.maxConcurrentRequests, or take a smaller model"
    device, deadline = "", None
    if resolved:
        device = device_resource(resolved.engine.spec.accelerator)
        deadline = resolved.chosen.startup_deadline_seconds
    return Workload(
        kind="ModelDeployment",
        name=deployment.metadata.name,
        main="engine",
        subject="Engine",
        noun=f"deployment/{deployment.metadata.name}",
        device=device,
        startup_deadline_seconds=deadline,
        drain_timeout_seconds=deployment.spec.rollout.drain_timeout_seconds,
        memory_advice=advice,
    )


def _fits(resolved: ResolvedModelDeployment | None) -> tuple[tuple[str, bool, str, str], ...]:
    if resolved is None or resolved.fit is None or resolved.fit.available_bytes is None:
        return ()
    if resolved.misfit:
        return (("Fits", False, "DoesNotFit", resolved.misfit),)
    words = f"{_gib(resolved.fit.required_bytes)} of {_gib(resolved.fit.available_bytes)} are needed"
    return (("Fits", True, "EnoughMemory", words),)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _endpoint(resolved: ResolvedModelDeployment) -> str:
    namespace, name = resolved.deployment.key
    return f"http://{name}.{namespace}.svc:{engine_of(resolved.engine.spec).port}/v1"
