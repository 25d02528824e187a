"""What the pods of a workload suffer from, in the words of those who know: scheduler, kubelet, downloader, engine."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stoker.api.observed import FetchProgress, ObservedContainer, ObservedPod, ObservedWorkload
from stoker.status.conditions import Cause
from stoker.status.crashes import explain_crash, has_crashed
from stoker.status.workload import Workload

_IMAGE_REASONS = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_MISSING_OBJECT = re.compile(r"secret|configmap", re.IGNORECASE)


def diagnose(workload: Workload, seen: ObservedWorkload, wanted: int) -> Cause | None:
    """The one thing to tell about a workload that is not complete; None when it is.

    What a person has to mend comes before what is under way.
    """
    deployment = seen.deployment
    if deployment is None:
        return Cause(f"{workload.subject}Starting", f"{workload.maker} is being created")
    pods = _alive([pod for pod in seen.pods if not pod.terminating])
    leaving = [pod for pod in seen.pods if pod.terminating]
    if wanted == 0:
        return _going(workload, [*pods, *leaving]) if pods or leaving else None
    causes = [cause for pod in sorted(pods, key=_newest_first) if (cause := _diagnose_pod(workload, pod, leaving))]
    if deployment.replica_failure:
        causes.insert(0, _refused_pods(workload, deployment.replica_failure))
    for cause in causes:
        if cause.stalled:
            return cause
    if causes:
        return causes[0]
    ready = deployment.ready_replicas
    stuck = deployment.progress_reason == "ProgressDeadlineExceeded" and ready < wanted
    # Deployment and pods are watched apart: of a new one its pods may be known before Kubernetes is seen to have looked at it.
    new = not deployment.observed_generation or not (pods or leaving or deployment.replicas)
    if new and not stuck:
        return Cause(f"{workload.subject}Starting", f"{workload.maker} is about to make its pods")
    if deployment.observed_generation < deployment.generation:
        return Cause("RollingOut", f"{workload.maker}: a change is being taken over")
    if deployment.updated_replicas < wanted and leaving and deployment.replicas < wanted:
        lost = next((pod for pod in leaving if pod.reason == "NodeLost"), None)
        return _node_unreachable(lost) if lost else _waiting_for_drain(workload, leaving)
    if stuck:
        return Cause(
            "ProgressDeadlineExceeded",
            f"{workload.maker} has not advanced within its deadline: see kubectl describe {workload.noun}",
            stalled=True,
        )
    if deployment.updated_replicas < deployment.replicas:
        return Cause("RollingOut", f"{deployment.updated_replicas} of {wanted} replicas are up to date")
    if deployment.replicas > wanted:
        return Cause("Stopping", f"{workload.maker} has {deployment.replicas} replicas and goes down to {wanted}")
    if ready < wanted <= sum(pod.ready for pod in pods):
        return Cause(f"{workload.subject}Loading", f"{workload.maker} has its replicas and is about to serve")
    if ready < wanted:
        return Cause(f"{workload.subject}Starting", f"{ready} of {wanted} replicas serve; the others are being started")
    return None


def slowest_download(pods: Iterable[ObservedPod]) -> FetchProgress | None:
    """Progress of the download that will take longest."""
    running = [pod.fetch for pod in pods if not pod.terminating and pod.fetch is not None and _is_fetching(pod)]
    return min(running, key=lambda progress: progress.completed_bytes / (progress.total_bytes or 2**63), default=None)


def is_download_unknown(pods: Iterable[ObservedPod]) -> bool:
    """A download runs, and no agent has told of any yet: so it is for the first seconds of a pod, and of an operator."""
    running = [pod for pod in pods if not pod.terminating and _is_fetching(pod)]
    return all(pod.fetch is None for pod in running) and any(
        container.name == "fetch" and container.state == "running" for pod in running for container in pod.containers
    )


def _alive(pods: list[ObservedPod]) -> list[ObservedPod]:
    """A pod that was evicted stays as a note; where there is another one, that is the pod to look at."""
    return [pod for pod in pods if pod.phase != "Failed"] or pods


def _newest_first(pod: ObservedPod) -> tuple[float, str]:
    return -pod.created_at, pod.name


def _diagnose_pod(workload: Workload, pod: ObservedPod, leaving: list[ObservedPod]) -> Cause | None:
    if pod.ready:
        return None
    if not pod.scheduled:
        return _unscheduled(workload, pod, leaving)
    if pod.reason == "Evicted":
        return _evicted(workload, pod)
    if _is_out_of_sight(pod):
        return _node_unreachable(pod)
    for container in pod.containers:
        cause = _blocked_container(workload, container)
        if cause:
            return cause
    fetch = next((container for container in pod.containers if container.name == "fetch"), None)
    if fetch is not None and not _has_succeeded(fetch):
        return _fetching(workload, pod, fetch)
    for container in pod.containers:
        if container.init and container.name != "fetch" and has_crashed(container):
            return explain_crash(workload, pod, container)
    main = next((container for container in pod.containers if container.name == workload.main), None)
    return _main_container(workload, pod, main)


def _is_out_of_sight(pod: ObservedPod) -> bool:
    """Containers as their kubelet last told them, all running and ready, in a pod that somebody else has called not ready."""
    there = [container for container in pod.containers if not _has_succeeded(container)]
    return pod.reason == "NodeLost" or (
        bool(there) and all(container.state == "running" and container.ready for container in there)
    )


def _node_unreachable(pod: ObservedPod) -> Cause:
    return Cause(
        "NodeUnreachable",
        f"Node {pod.node} of pod {pod.name} does not answer any more. After five minutes Kubernetes starts another pod where there "
        "is room; delete the Node object if the machine will not come back",
    )


def _evicted(workload: Workload, pod: ObservedPod) -> Cause:
    disk = "storage" in pod.message or "EmptyDir" in pod.message
    step = (
        "enlarge cache.size of the InferenceEngine, or the node's disk"
        if disk
        else "give it requests that are as large as what it uses"
    )
    return Cause(
        "DiskFull" if disk else "Evicted",
        f"Pod {pod.name} of {workload.kind} {workload.name} was evicted from node {pod.node}: {step}. The kubelet says: {pod.message}",
        stalled=True,
    )


def _unscheduled(workload: Workload, pod: ObservedPod, leaving: list[ObservedPod]) -> Cause:
    words = pod.unschedulable_message
    if not words:
        return Cause(f"{workload.subject}Starting", f"Pod {pod.name} is being scheduled")
    if "persistentvolumeclaim" in words and "not found" in words:
        return Cause(
            "ClaimNotFound",
            f"A claim that pod {pod.name} mounts does not exist: create it. The scheduler says: {words}",
        )
    if leaving and "Insufficient" in words:
        return _waiting_for_drain(workload, leaving)
    if workload.device and f"Insufficient {workload.device}" in words:
        return Cause(
            "InsufficientGPUs",
            f"No node has enough free {workload.device} for pod {pod.name}; it starts by itself when one has. "
            f"Add a node, free devices, or lower spec.gpus. The scheduler says: {words}",
        )
    return Cause(
        "Unschedulable",
        f"No node takes pod {pod.name}; it starts by itself when one does. Compare resources, nodeSelector, tolerations and "
        f"affinity with the nodes. The scheduler says: {words}",
    )


def _blocked_container(workload: Workload, container: ObservedContainer) -> Cause | None:
    """What the kubelet cannot even create."""
    if container.state != "waiting":
        return None
    if container.reason in _IMAGE_REASONS:
        return Cause(
            "ImagePullFailed",
            f"The image {container.image} of container {container.name} cannot be pulled: correct it, or name its registry's "
            f"secret in imagePullSecrets. The kubelet says: {container.message or container.reason}",
            stalled=True,
        )
    if container.reason == "CreateContainerConfigError":
        found = _MISSING_OBJECT.search(container.message)
        reason = "ContainerConfigError"
        if found:
            reason = "SecretNotFound" if found[0].lower() == "secret" else "ConfigMapNotFound"
        return Cause(
            reason,
            f"Container {container.name} of {workload.kind} {workload.name} cannot be configured; create what is missing and it "
            f"goes on by itself. The kubelet says: {container.message}",
        )
    if container.reason in ("CreateContainerError", "RunContainerError"):
        return Cause(
            "ContainerNotCreated",
            f"Container {container.name} of {workload.kind} {workload.name} cannot be started. The kubelet says: {container.message}",
            stalled=True,
        )
    return None


def _fetching(workload: Workload, pod: ObservedPod, container: ObservedContainer) -> Cause:
    progress = pod.fetch
    if progress is not None and progress.phase == "Done" and not has_crashed(container):
        return Cause(f"{workload.subject}Starting", f"Pod {pod.name} has its weights and is being started")
    if progress is None or progress.phase == "Done":
        if has_crashed(container):
            words = container.message or container.last_message or "it left no message"
            return Cause(
                "DownloadFailed", f"The download in pod {pod.name} ends again and again: {words}", stalled=True
            )
        verb = (
            "brings the weights, or looks"
            if container.state == "running"
            else "is about to bring the weights, or to look"
        )
        return Cause("Downloading", f"Pod {pod.name} {verb} at them")
    if progress.phase == "Failed":
        return Cause(progress.reason or "DownloadFailed", progress.message or "The download failed", stalled=True)
    if progress.phase == "Retrying":
        return Cause(progress.reason or "SourceUnreachable", progress.message or "The download is being tried again")
    if progress.phase == "Waiting":
        return Cause(
            "Downloading", progress.message or f"Pod {pod.name} waits for another pod that downloads the same weights"
        )
    verb = "Verifying" if progress.phase == "Verifying" else "Downloading"
    return Cause("Downloading", f"{verb} {_amount(progress)}" + (f" ({progress.file})" if progress.file else ""))


def _main_container(workload: Workload, pod: ObservedPod, container: ObservedContainer | None) -> Cause:
    if container is not None and has_crashed(container):
        return explain_crash(workload, pod, container)
    if container is None or container.state != "running":
        return Cause(f"{workload.subject}Starting", f"Pod {pod.name} is being started")
    if not container.started:
        limit = f" (at most {workload.startup_deadline_seconds} s)" if workload.startup_deadline_seconds else ""
        return Cause(f"{workload.subject}Loading", f"Pod {pod.name} runs and is loading{limit}")
    if _has_not_served_yet(pod, container):
        return Cause(
            f"{workload.subject}Loading", f"Pod {pod.name} has started, and its readiness probe has not passed yet"
        )
    return Cause(f"{workload.subject}Unresponsive", f"Pod {pod.name} runs, but does not answer its readiness probe now")


def _has_not_served_yet(pod: ObservedPod, container: ObservedContainer) -> bool:
    """The kubelet asks whether it is ready only after it has started, so for a moment every pod is as one that has ceased to answer.
    What became unready before the container's present run did so in an earlier one, or was not ready yet."""
    since = container.running_since
    return pod.unready_since is None or (since is not None and pod.unready_since <= since)


def _refused_pods(workload: Workload, words: str) -> Cause:
    if "PodSecurity" in words:
        return Cause(
            "PodSecurityForbidden",
            f"The namespace's Pod Security level refuses the pods of {workload.kind} {workload.name}: remove what it names, or "
            f"change the namespace's label pod-security.kubernetes.io/enforce. Kubernetes says: {words}",
            stalled=True,
        )
    return Cause(
        "PodsForbidden",
        f"Kubernetes refuses the pods of {workload.kind} {workload.name}: raise the quota or remove what it names. It says: {words}",
        stalled=True,
    )


def _waiting_for_drain(workload: Workload, leaving: list[ObservedPod]) -> Cause:
    limit = f", {workload.drain_timeout_seconds} s at most" if workload.drain_timeout_seconds is not None else ""
    names = ", ".join(sorted(pod.name for pod in leaving)[:3])
    return Cause("WaitingForDrain", f"A new replica starts when {names} has finished its running requests{limit}")


def _going(workload: Workload, pods: list[ObservedPod]) -> Cause:
    names = ", ".join(sorted(pod.name for pod in pods)[:3])
    return Cause(
        "Stopping", f"{workload.kind} {workload.name} is to have no replica; {names} finishes its running requests"
    )


def _has_succeeded(container: ObservedContainer) -> bool:
    return container.state == "terminated" and container.exit_code == 0


def _is_fetching(pod: ObservedPod) -> bool:
    return any(container.name == "fetch" and not _has_succeeded(container) for container in pod.containers)


def _amount(progress: FetchProgress) -> str:
    """``3.1/5.0 GB``: the same unit on both sides, so that the two can be compared at a glance."""
    largest = max(progress.completed_bytes, progress.total_bytes or 0)
    unit, size = next(((u, s) for u, s in (("GB", 10**9), ("MB", 10**6)) if largest >= s), ("kB", 10**3))
    total = f"/{progress.total_bytes / size:.1f}" if progress.total_bytes is not None else ""
    return f"{progress.completed_bytes / size:.1f}{total} {unit}"
