from __future__ import annotations

import pytest

from stoker.api.observed import FetchProgress, ObservedWorkload
from stoker.status.conditions import Cause
from stoker.status.pods import diagnose, slowest_download
from stoker.status.workload import Workload

MODEL = Workload(
    kind="ModelDeployment", name="smol", main="engine", subject="Engine", noun="deployment/smol", device="nvidia.com/gpu",
    startup_deadline_seconds=600, drain_timeout_seconds=300,
)  # fmt: skip


def cause(seen: ObservedWorkload, wanted: int = 1) -> Cause:
    found = diagnose(MODEL, seen, wanted)
    assert found is not None
    return found


@pytest.fixture
def ready_pod(pod, container):
    def make(**more):
        return pod(container(ready=True, started=True), ready=True, **more)

    return make


def test_a_complete_workload_has_nothing_to_tell(workload, ready_pod) -> None:
    assert diagnose(MODEL, workload(ready_pod()), 1) is None


def test_before_the_deployment_exists_it_is_being_created() -> None:
    assert cause(ObservedWorkload(deployment=None)).reason == "EngineStarting"


@pytest.mark.parametrize("seen", [{"generation": 1, "observed_generation": 0}, {"generation": 1}])
def test_a_new_model_whose_pods_are_not_there_yet_is_starting_and_not_rolling_out(workload, seen) -> None:
    assert cause(workload(**seen)).reason == "EngineStarting"


def test_a_missing_gpu_is_told_in_the_schedulers_words(workload, pod) -> None:
    words = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate"
    found = cause(workload(pod(scheduled=False, unschedulable_message=words)))
    assert (found.reason, found.stalled) == ("InsufficientGPUs", False)
    assert found.message.endswith(f"The scheduler says: {words}")


def test_another_resource_is_not_a_missing_gpu(workload, pod) -> None:
    words = "0/2 nodes are available: 2 Insufficient amd.com/gpu."
    assert cause(workload(pod(scheduled=False, unschedulable_message=words))).reason == "Unschedulable"
    assert (
        cause(workload(pod(scheduled=False, unschedulable_message="2 node(s) had untolerated taint"))).reason
        == "Unschedulable"
    )


def test_a_missing_claim_is_told_by_the_scheduler(workload, pod) -> None:
    words = '0/2 nodes are available: persistentvolumeclaim "shared-models" not found. not found'
    found = cause(workload(pod(scheduled=False, unschedulable_message=words)))
    assert found.reason == "ClaimNotFound"
    unbound = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    assert cause(workload(pod(scheduled=False, unschedulable_message=unbound))).reason == "Unschedulable"


def test_a_new_pod_that_lacks_the_leaving_ones_gpu_waits_for_its_drain(workload, pod, ready_pod) -> None:
    words = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    leaving = ready_pod(name="old", terminating=True)
    found = cause(workload(pod(scheduled=False, unschedulable_message=words), leaving))
    assert found == Cause(
        "WaitingForDrain", "A new replica starts when old has finished its running requests, 300 s at most"
    )


def test_while_recreate_waits_there_is_no_new_pod_yet(workload, ready_pod) -> None:
    assert cause(workload(ready_pod(name="old", terminating=True))).reason == "WaitingForDrain"


def test_a_pod_that_was_not_scheduled_yet_is_starting(workload, pod) -> None:
    assert cause(workload(pod(scheduled=False))).reason == "EngineStarting"


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "InvalidImageName"])
@pytest.mark.parametrize("name", ["engine", "agent", "fetch"])
def test_a_bad_image_is_told_with_its_name_and_the_kubelets_words(workload, pod, container, reason, name) -> None:
    bad = container(name, "waiting", reason=reason, message="manifest unknown", image="ghcr.io/x/y:1")
    found = cause(workload(pod(bad)))
    assert (found.reason, found.stalled) == ("ImagePullFailed", True)
    assert "ghcr.io/x/y:1" in found.message
    assert "manifest unknown" in found.message
    assert name in found.message


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('secret "hub" not found', "SecretNotFound"),
        ("couldn't find key token in Secret team/hub", "SecretNotFound"),
        ('configmap "templates" not found', "ConfigMapNotFound"),
        ("container has runAsNonRoot and image will run as root", "ContainerConfigError"),
    ],
)
def test_what_a_container_lacks_is_told_by_the_kubelet(workload, pod, container, words, reason) -> None:
    found = cause(workload(pod(container("engine", "waiting", reason="CreateContainerConfigError", message=words))))
    assert (found.reason, found.stalled) == (reason, False)
    assert words in found.message


def test_a_container_that_cannot_be_started_is_told(workload, pod, container) -> None:
    words = "exec: no such file or directory"
    found = cause(workload(pod(container("engine", "waiting", reason="RunContainerError", message=words))))
    assert (found.reason, found.stalled) == ("ContainerNotCreated", True)


@pytest.mark.parametrize(
    ("progress", "reason", "told", "stalled"),
    [
        (FetchProgress("Downloading", "m.gguf", 3_100_000_000, 5_000_000_000), "Downloading", "Downloading 3.1/5.0 GB (m.gguf)", False),
        (FetchProgress("Downloading", "", 31_000_000, 98_000_000), "Downloading", "Downloading 31.0/98.0 MB", False),
        (FetchProgress("Downloading", "", 3100, None), "Downloading", "Downloading 3.1 kB", False),
        (FetchProgress("Verifying", "m.gguf", 5, 5000), "Downloading", "Verifying 0.0/5.0 kB (m.gguf)", False),
        (FetchProgress("Waiting"), "Downloading", "Pod smol-1 waits for another pod that downloads the same weights", False),
        (FetchProgress("Retrying", reason="SourceNotFound", message="404"), "SourceNotFound", "404", False),
        (FetchProgress("Retrying"), "SourceUnreachable", "The download is being tried again", False),
        (FetchProgress("Failed", reason="ChecksumMismatch", message="differs"), "ChecksumMismatch", "differs", True),
        (FetchProgress("Failed"), "DownloadFailed", "The download failed", True),
        (FetchProgress("Done"), "EngineStarting", "Pod smol-1 has its weights and is being started", False),
        (None, "Downloading", "Pod smol-1 brings the weights, or looks at them", False),
    ],
)  # fmt: skip
def test_a_download_tells_how_far_it_is_or_what_stops_it(
    workload, pod, container, progress, reason, told, stalled
) -> None:
    seen = pod(container("agent", started=True), container("fetch"), container("engine", "waiting"), fetch=progress)
    assert cause(workload(seen)) == Cause(reason, told, stalled)


def test_a_download_that_ends_again_and_again_is_told_even_without_progress(workload, pod, container) -> None:
    fetch = container("fetch", "waiting", reason="CrashLoopBackOff", restarts=3, last_message="no space left")
    found = cause(workload(pod(fetch)))
    assert (found.reason, found.stalled) == ("DownloadFailed", True)


def test_after_the_download_the_engine_starts_and_loads(workload, pod, container) -> None:
    done = container("fetch", "terminated", exit_code=0, reason="Completed")
    assert (
        cause(workload(pod(done, container("engine", "waiting", reason="PodInitializing")))).reason == "EngineStarting"
    )
    assert cause(workload(pod(done))).reason == "EngineStarting"
    found = cause(workload(pod(done, container("engine", "running"))))
    assert found == Cause("EngineLoading", "Pod smol-1 runs and is loading (at most 600 s)")


def test_an_engine_that_was_ready_and_does_not_answer_any_more_is_unresponsive(workload, pod, container) -> None:
    engine = container("engine", started=True, running_since=100.0)
    assert cause(workload(pod(engine, unready_since=160.0))).reason == "EngineUnresponsive"


@pytest.mark.parametrize("unready_since", [None, 95.0, 100.0])
def test_an_engine_that_has_just_started_is_loading_until_it_is_asked_for_the_first_time(
    workload, pod, container, unready_since
) -> None:
    engine = container("engine", started=True, running_since=100.0)
    found = cause(workload(pod(engine, unready_since=unready_since)))
    assert found == Cause("EngineLoading", "Pod smol-1 has started, and its readiness probe has not passed yet")


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({"last_reason": "OOMKilled", "last_exit_code": 137}, "EngineOutOfMemory"),
        (
            {"last_reason": "Error", "last_exit_code": 1, "last_message": "CUDA error: out of memory"},
            "DeviceOutOfMemory",
        ),
        ({"last_reason": "Error", "last_exit_code": 137}, "StartupDeadlineExceeded"),
        (
            {"last_reason": "Error", "last_exit_code": 1, "last_message": "unknown model architecture"},
            "UnsupportedModel",
        ),
        ({"last_reason": "Error", "last_exit_code": 139, "ran_seconds": 12.0}, "EngineCrashed"),
        ({"last_reason": "Error", "last_exit_code": 137, "ran_seconds": 12.0}, "EngineCrashed"),
        ({"last_reason": "Error", "last_exit_code": 137, "ran_seconds": 602.0}, "StartupDeadlineExceeded"),
    ],
)
@pytest.mark.parametrize("state", [{"state": "waiting", "reason": "CrashLoopBackOff"}, {"state": "running"}])
def test_why_an_engine_ended_is_told_until_it_has_started_again(workload, pod, container, last, reason, state) -> None:
    found = cause(workload(pod(container("engine", restarts=2, **state, **last))))
    assert (found.reason, found.stalled) == (reason, True)


def test_an_engine_that_has_just_ended_is_told_before_it_is_started_again(workload, pod, container) -> None:
    ended = container("engine", "terminated", reason="Error", exit_code=1, message="cannot open /models/x")
    found = cause(workload(pod(ended)))
    assert found.reason == "EngineCrashed"
    assert "exit code 1" in found.message
    assert found.message.endswith("It said last: cannot open /models/x")
    assert "kubectl logs deployment/smol -c engine --previous" in found.message


BEGAN = {"started_at": 1000.0, "unready_since": 4800.0}
"""A pod that was ready from some time on, and ceased to be so at 4,800 s."""


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({"last_exit_code": 1, "ran_seconds": 3720.0, "run_started_at": 1080.0}, "EngineCrashedServing"),
        # Killed by a failing liveness probe, after about as long as it may take to load.
        ({"last_exit_code": 137, "ran_seconds": 610.0, "run_started_at": 4190.0}, "EngineCrashedServing"),
        ({"last_exit_code": 139, "ran_seconds": 3.0, "run_started_at": 4820.0, "restarts": 5}, "EngineCrashedServing"),
        # It had served, and the new start was too slow.
        ({"last_exit_code": 137, "ran_seconds": 602.0, "run_started_at": 4820.0}, "StartupDeadlineExceeded"),
        ({"last_exit_code": 1, "ran_seconds": 3.0, "last_message": "CUDA error: out of memory"}, "DeviceOutOfMemory"),
        ({"last_exit_code": 137, "ran_seconds": 3720.0, "last_reason": "OOMKilled"}, "EngineOutOfMemory"),
    ],
)
def test_an_engine_that_ends_after_it_had_served_is_told_apart(workload, pod, container, last, reason) -> None:
    ended = container("engine", "waiting", **{"reason": "CrashLoopBackOff", "restarts": 1, **last})
    assert cause(workload(pod(ended, **BEGAN))).reason == reason


def test_a_crash_after_an_hour_says_how_long_it_ran(workload, pod, container) -> None:
    last = {"last_reason": "Error", "last_exit_code": 139, "ran_seconds": 3720.0}
    ended = container("engine", "waiting", reason="CrashLoopBackOff", restarts=1, **last)
    found = cause(workload(pod(ended, **BEGAN)))
    assert "had served, ended with exit code 139 after it had run for 1 h 2 min, and has not come back" in found.message


def test_a_pod_that_was_never_ready_has_not_served(workload, pod, container) -> None:
    """Kubernetes calls it not ready from the second on in which its kubelet takes it over, or the next."""
    ended = container("engine", "waiting", reason="CrashLoopBackOff", restarts=1, last_exit_code=1, ran_seconds=4000.0)
    found = cause(workload(pod(ended, started_at=1000.0, unready_since=1001.0)))
    assert found.reason == "EngineCrashed"


def test_the_line_with_the_cause_is_shown_where_much_follows_it(workload, pod, container) -> None:
    words = "before\nerror: invalid argument: --no-such-flag\n" + "usage of every other flag\n" * 100
    ended = container("engine", "terminated", reason="Error", exit_code=1, message=words)
    found = cause(workload(pod(ended)))
    assert found.reason == "InvalidArgument"
    assert "It said last: error: invalid argument: --no-such-flag" in found.message


def test_a_node_that_is_gone_is_told(workload, pod, container) -> None:
    """The node controller calls the pod not ready; the containers stay as their kubelet last told them."""
    lost = pod(container("agent", ready=True, started=True), container(ready=True, started=True), node="n1")
    found = cause(workload(lost))
    assert (found.reason, found.stalled) == ("NodeUnreachable", False)
    assert "Node n1 of pod smol-1" in found.message


@pytest.mark.parametrize("reason", ["CrashLoopBackOff", "ImagePullBackOff", "PodInitializing"])
def test_a_ready_agent_beside_an_engine_that_is_not_there_is_no_lost_node(workload, pod, container, reason) -> None:
    seen = pod(container("agent", ready=True, started=True), container("engine", "waiting", reason=reason, restarts=2))
    assert cause(workload(seen)).reason != "NodeUnreachable"


def test_a_pod_that_cannot_leave_its_lost_node_is_no_drain(workload, ready_pod) -> None:
    lost = ready_pod(name="old", terminating=True, reason="NodeLost", node="n1")
    assert cause(workload(lost)).reason == "NodeUnreachable"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('Usage of EmptyDir volume "models" exceeds the limit "10Gi". ', "DiskFull"),
        ("The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 0.", "DiskFull"),
        ("The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi.", "Evicted"),
    ],
)
def test_an_evicted_pod_says_why_until_there_is_another(workload, pod, ready_pod, words, reason) -> None:
    gone = pod(name="gone", phase="Failed", reason="Evicted", message=words, node="n1")
    found = cause(workload(gone))
    assert (found.reason, found.stalled) == (reason, True)
    assert words in found.message
    assert (
        diagnose(MODEL, workload(gone, ready_pod(phase="Running"), updated_replicas=1, replicas=1, ready_replicas=1), 1)
        is None
    )


def test_an_engine_that_crashed_once_and_serves_now_is_no_problem(workload, pod, container) -> None:
    seen = pod(container("engine", ready=True, started=True, restarts=4, last_reason="OOMKilled"), ready=True)
    assert diagnose(MODEL, workload(seen), 1) is None


def test_a_crashing_sidecar_is_told_by_name(workload, pod, container) -> None:
    agent = container("agent", "waiting", reason="CrashLoopBackOff", restarts=3, last_reason="Error", last_exit_code=2)
    found = cause(workload(pod(agent, container("engine", "waiting"))))
    assert found.reason == "EngineCrashed"
    assert "Container agent of ModelDeployment smol ended with exit code 2" in found.message


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": hostPath', "PodSecurityForbidden"),
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1', "PodsForbidden"),
    ],
)
def test_pods_that_kubernetes_refuses_are_told(workload, words, reason) -> None:
    found = cause(workload(replica_failure=words))
    assert (found.reason, found.stalled) == (reason, True)
    assert words in found.message


def test_what_a_person_must_mend_comes_before_what_is_under_way(workload, pod, container) -> None:
    loading = pod(container("engine", "running"), name="a", created_at=2.0)
    broken = pod(container("engine", "waiting", reason="ErrImagePull", image="x"), name="b", created_at=1.0)
    assert cause(workload(loading, broken), 2).reason == "ImagePullFailed"


def test_of_two_things_under_way_the_newest_pods_is_told(workload, pod, container) -> None:
    old = pod(container("engine", "running"), name="a", created_at=1.0)
    new = pod(scheduled=False, name="b", created_at=2.0)
    assert cause(workload(old, new), 2).message == "Pod b is being scheduled"


def test_a_rollout_is_told_while_it_lasts(workload, ready_pod) -> None:
    both = (ready_pod(name="a"), ready_pod(name="b"))
    assert cause(workload(*both, updated_replicas=1), 2) == Cause("RollingOut", "1 of 2 replicas are up to date")
    assert cause(workload(*both, updated_replicas=1), 1).reason == "RollingOut"
    assert cause(workload(*both), 1) == Cause("Stopping", "Deployment smol has 2 replicas and goes down to 1")
    assert cause(workload(*both, generation=2), 2).reason == "RollingOut"


def test_pods_that_are_not_there_yet_are_being_started(workload, ready_pod) -> None:
    assert cause(workload(ready_pod(), updated_replicas=2), 2).reason == "EngineStarting"


def test_a_rollout_that_does_not_advance_is_told(workload) -> None:
    found = cause(workload(progress_reason="ProgressDeadlineExceeded"))
    assert (found.reason, found.stalled) == ("ProgressDeadlineExceeded", True)


def test_stopping_lasts_until_the_last_pod_has_gone(workload, ready_pod) -> None:
    found = cause(workload(ready_pod(name="a", terminating=True)), 0)
    assert found == Cause("Stopping", "ModelDeployment smol is to have no replica; a finishes its running requests")
    assert diagnose(MODEL, workload(), 0) is None


def test_the_slowest_download_is_the_one_furthest_from_its_end(pod, container) -> None:
    def downloading(name: str, done: int, total: int | None, **more):
        return pod(container("fetch"), name=name, fetch=FetchProgress("Downloading", name, done, total), **more)

    pods = [
        downloading("a", 50, 100),
        downloading("b", 10, 100),
        downloading("c", 1, 100, terminating=True),
        pod(container("fetch", "terminated", exit_code=0), name="d", fetch=FetchProgress("Done", "d", 0, 100)),
        pod(container("fetch"), name="e"),
    ]
    slowest = slowest_download(pods)
    assert slowest is not None
    assert slowest.file == "b"
    assert slowest_download([]) is None
    unknown = slowest_download([*pods, downloading("f", 70, None)])
    assert unknown is not None
    assert unknown.file == "f"
