from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stoker.api.autoscaling import AutoscalingStatus
from stoker.api.inspection import FitStatus, ModelStatus
from stoker.api.model_deployment import ModelDeploymentStatus
from stoker.api.observed import FetchProgress
from stoker.errors import Stalled, Waiting
from stoker.status.model_deployment import compute_model_deployment_status


@pytest.fixture
def compute(make_model, resolve, now):
    def make(workload=None, *, model=None, gateways=(("team", "gateway"),), **more: Any) -> ModelDeploymentStatus:
        model = model or make_model()
        problem = more.pop("problem", None)
        resolved = more.pop("resolved", None if problem else resolve(model))
        return compute_model_deployment_status(
            model,
            resolved=resolved,
            workload=workload,
            problem=problem,
            gateways=gateways,
            name_taken=more.pop("name_taken", ""),
            update_available=more.pop("update_available", None),
            scaling=more.pop("scaling", None),
            now=more.pop("now", now),
        )

    return make


@pytest.fixture
def serving(pod, container):
    return pod(container(ready=True, started=True), ready=True)


def conditions(status: ModelDeploymentStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_serving_model_is_ready_and_tells_all_its_facts(compute, workload, serving) -> None:
    status = compute(workload(serving), update_available="engine image: a → b")
    assert conditions(status) == {"Ready": ("True", "Serving")}
    assert status.conditions[0].message == "1 of 1 replicas serve smol"
    assert (status.observed_generation, status.replicas, status.ready_replicas, status.desired_replicas) == (3, 1, 1, 1)
    assert status.selector == "app.kubernetes.io/component=engine,stoker.dev/model-deployment=smol"
    assert (status.engine, status.image) == ("llama", "engine:1")
    assert status.endpoint == "http://smol.team.svc:8080/v1"
    assert status.gateways == ["team/gateway"]
    assert status.update_available == "engine image: a → b"
    assert status.download is None


def test_the_same_facts_later_give_an_equal_status(compute, make_model, workload, serving, now) -> None:
    first = compute(workload(serving))
    again = compute(workload(serving), model=make_model(status=first), now=now + timedelta(hours=1))
    assert again == first


def test_the_selector_selects_what_the_deployment_selects(compute) -> None:
    from stoker.api import ModelDeployment
    from stoker.desired.objects import selector_labels

    model = ModelDeployment.model_validate(
        {"metadata": {"name": "smol"}, "spec": {"engineRef": {"name": "e"}, "source": {"uri": "https://h/m.gguf"}}}
    )
    labels = selector_labels(model, "engine")
    assert compute().selector == ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def test_a_download_is_reconciling_and_told_with_its_numbers(compute, workload, pod, container) -> None:
    progress = FetchProgress("Downloading", "m.gguf", 3_100_000_000, 5_000_000_000)
    status = compute(workload(pod(container("fetch"), fetch=progress)))
    assert conditions(status) == {"Ready": ("False", "Downloading"), "Reconciling": ("True", "Downloading")}
    assert status.conditions[1].message == "Downloading 3.1/5.0 GB (m.gguf)"
    assert status.download is not None
    assert (status.download.file, status.download.completed_bytes, status.download.total_bytes) == (
        "m.gguf",
        3_100_000_000,
        5_000_000_000,
    )


def test_progress_does_not_fall_back_when_another_operator_has_not_asked_yet(
    compute, make_model, workload, pod, container
) -> None:
    told = compute(workload(pod(container("fetch"), fetch=FetchProgress("Downloading", "m.gguf", 31, 50))))
    assert compute(workload(pod(container("fetch"))), model=make_model(status=told)) == told


@pytest.mark.parametrize("fetch", [{"state": "waiting"}, {"state": "terminated", "exit_code": 0}])
def test_progress_of_before_is_not_told_of_a_download_that_does_not_run(
    compute, make_model, workload, pod, container, fetch
) -> None:
    told = compute(workload(pod(container("fetch"), fetch=FetchProgress("Downloading", "m.gguf", 31, 50))))
    seen = workload(pod(container("fetch", **fetch)))
    assert compute(seen, model=make_model(status=told)) == compute(seen)


def test_an_old_replica_that_serves_keeps_the_model_ready_beside_a_failing_new_one(
    compute, workload, serving, pod, container
) -> None:
    broken = pod(container(state="waiting", reason="ErrImagePull", image="x"), name="new", created_at=9.0)
    status = compute(workload(serving, broken, updated_replicas=1))
    assert conditions(status) == {"Ready": ("True", "Serving"), "Stalled": ("True", "ImagePullFailed")}


@pytest.mark.parametrize(("error", "kind"), [(Stalled, "Stalled"), (Waiting, "Reconciling")])
def test_a_problem_before_pods_exist_is_the_reason(compute, error, kind) -> None:
    status = compute(problem=error("EngineNotFound", "no engine"))
    assert conditions(status) == {"Ready": ("False", "EngineNotFound"), kind: ("True", "EngineNotFound")}
    assert status.conditions[0].message == "no engine"


def test_a_problem_leaves_a_serving_model_ready_with_the_facts_it_had(compute, make_model, workload, serving) -> None:
    before = compute(workload(serving))
    status = compute(workload(serving), model=make_model(status=before), problem=Stalled("EngineNotFound", "no engine"))
    assert conditions(status) == {"Ready": ("True", "Serving"), "Stalled": ("True", "EngineNotFound")}
    assert (status.image, status.endpoint) == (before.image, before.endpoint)


def test_a_stopped_model_is_as_it_should_be(compute, make_model, workload, serving, pod, container) -> None:
    stopped = make_model(replicas=0)
    assert conditions(compute(workload(), model=stopped)) == {"Ready": ("True", "Stopped")}
    leaving = pod(container(ready=True, started=True), ready=True, terminating=True)
    assert conditions(compute(workload(leaving), model=stopped)) == {
        "Ready": ("True", "Stopped"),
        "Reconciling": ("True", "Stopping"),
    }
    broken = compute(workload(), model=stopped, problem=Stalled("EngineNotFound", "no engine"))
    assert conditions(broken)["Ready"] == ("False", "EngineNotFound")


def test_a_model_whose_name_is_taken_everywhere_is_not_ready(compute, workload, serving) -> None:
    status = compute(workload(serving), name_taken="older has it", gateways=())
    assert conditions(status) == {"Ready": ("False", "ServedNameTaken"), "Stalled": ("True", "ServedNameTaken")}


def test_a_model_that_another_gateway_publishes_stays_ready(compute, workload, serving) -> None:
    status = compute(workload(serving), name_taken="older has it")
    assert conditions(status) == {"Ready": ("True", "Serving"), "Stalled": ("True", "ServedNameTaken")}


def test_a_missing_gpu_is_recognised_by_the_engines_accelerator(compute, make_model, resolve, workload, pod) -> None:
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    seen = workload(pod(scheduled=False, unschedulable_message=words))
    model = make_model(gpus=1)
    status = compute(seen, model=model, resolved=resolve(model, "NVIDIA", 1))
    assert conditions(status)["Ready"] == ("False", "InsufficientGPUs")
    assert words in status.conditions[0].message


def test_a_model_that_only_just_lost_its_replica_says_so(compute, workload, serving) -> None:
    status = compute(workload(serving, ready_replicas=0))
    assert conditions(status)["Ready"] == ("False", "EngineLoading")


def test_before_anything_exists_it_is_starting(compute) -> None:
    assert conditions(compute())["Ready"] == ("False", "EngineStarting")


def test_fits_stands_beside_ready_once_the_memory_is_known(compute, make_model, resolve, workload, serving) -> None:
    model = make_model()
    fit = FitStatus(required_bytes=3 << 30, available_bytes=4 << 30)
    fitting = replace(resolve(model), model=ModelStatus(architecture="llama"), fit=fit)
    status = compute(workload(serving), resolved=fitting)
    assert conditions(status) == {"Ready": ("True", "Serving"), "Fits": ("True", "EnoughMemory")}
    assert status.conditions[1].message == "3.00 GiB of 4.00 GiB are needed"
    assert (status.fit, status.model) == (fit, ModelStatus(architecture="llama"))
    unknown = replace(fitting, fit=FitStatus(required_bytes=1))
    assert conditions(compute(workload(serving), resolved=unknown)) == {"Ready": ("True", "Serving")}


def test_what_is_known_of_a_model_outlives_a_problem(compute, make_model) -> None:
    before = ModelDeploymentStatus(model=ModelStatus(layers=3), fit=FitStatus(slots=2))
    after = compute(model=make_model(status=before), problem=Waiting("SecretNotFound", "no"), resolved=None)
    assert (after.model, after.fit) == (before.model, before.fit)


def test_a_misfit_is_the_reason_of_not_being_ready(compute, make_model, resolve) -> None:
    misfit = replace(resolve(make_model()), fit=FitStatus(available_bytes=1), misfit="it needs more")
    status = compute(resolved=misfit, problem=Stalled("DoesNotFit", "smol does not fit"))
    assert conditions(status) == {
        "Ready": ("False", "DoesNotFit"),
        "Fits": ("False", "DoesNotFit"),
        "Stalled": ("True", "DoesNotFit"),
    }


def test_a_chosen_engine_is_told_with_its_reason(compute, make_model, resolve) -> None:
    model = make_model(engineRef=None)
    resolved = resolve(model)
    chosen = resolved.chosen.model_copy(
        update={"engine_name": "llama", "engine_reason": "LlamaCpp llama: GGUF weights"}
    )
    status = compute(model=model, resolved=replace(resolved, chosen=chosen))
    assert (status.engine, status.engine_reason) == ("llama", "LlamaCpp llama: GGUF weights")
    # While something is wrong the pods go on where they are.
    broken = compute(model=make_model(engineRef=None, status=status), problem=Stalled("NoEngineFits", "none"))
    assert (broken.engine, broken.engine_reason) == ("llama", None)


def test_an_engine_that_was_named_needs_no_reason(compute) -> None:
    assert compute().engine_reason is None


def test_a_sleeping_model_is_ready_and_says_what_wakes_it(compute, make_model, resolve, workload) -> None:
    model = make_model(autoscaling={"minReplicas": 0, "maxReplicas": 2})
    asleep = AutoscalingStatus(reason="Idle", message="1 → 0: no requests")
    status = compute(workload(), model=model, resolved=replace(resolve(model), replicas=0), scaling=asleep)
    assert conditions(status) == {"Ready": ("True", "Sleeping"), "ScalingActive": ("True", "LoadKnown")}
    assert "the next request wakes it" in status.conditions[0].message
    assert (status.desired_replicas, status.autoscaling) == (0, asleep)


def test_a_model_that_was_woken_is_not_ready_until_a_replica_serves(
    compute, make_model, resolve, workload, pod
) -> None:
    model = make_model(autoscaling={"minReplicas": 0, "maxReplicas": 2})
    status = compute(workload(pod()), model=model, resolved=replace(resolve(model), replicas=1))
    assert conditions(status)["Ready"] == ("False", "EngineStarting")


def test_a_suspended_model_says_how_to_start_it(compute, make_model, resolve, workload) -> None:
    model = make_model(suspend=True)
    status = compute(workload(), model=model, resolved=replace(resolve(model), replicas=0))
    assert conditions(status) == {"Ready": ("True", "Suspended")}
    assert "set spec.suspend to false" in status.conditions[0].message


@pytest.mark.parametrize(("replicas", "reason"), [(2, "Serving"), (0, "Stopped")])
def test_an_override_is_named_so_that_it_is_not_forgotten(
    compute, make_model, resolve, workload, serving, replicas: int, reason: str
) -> None:
    model = make_model()
    metadata = model.metadata.model_copy(update={"annotations": {"stoker.dev/replicas-override": str(replicas)}})
    model = model.model_copy(update={"metadata": metadata})
    pods = [serving] * replicas
    status = compute(workload(*pods), model=model, resolved=replace(resolve(model), replicas=replicas))
    assert conditions(status)["Ready"] == ("True", reason)
    assert "annotation stoker.dev/replicas-override" in status.conditions[0].message


def test_a_model_whose_load_is_unknown_says_that_it_is_not_scaled(compute, make_model, workload, serving) -> None:
    model = make_model(autoscaling={"maxReplicas": 2})
    blind = AutoscalingStatus(reason="MetricsStale", message="the load was last seen 40 s ago")
    status = compute(workload(serving), model=model, scaling=blind)
    assert conditions(status) == {"Ready": ("True", "Serving"), "ScalingActive": ("False", "MetricsStale")}


def test_what_cannot_be_resolved_keeps_the_number_that_the_load_asked_for(compute, make_model, workload) -> None:
    before = ModelDeploymentStatus(desired_replicas=3)
    model = make_model(autoscaling={"maxReplicas": 4}, status=before)
    status = compute(workload(), model=model, problem=Stalled("EngineNotFound", "gone"))
    assert status.desired_replicas == 3
