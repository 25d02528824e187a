"""What all kinds share."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stoker.api import KIND_BY_NAME, KINDS, ApiGateway, InferenceEngine, ModelDeployment
from stoker.api.base import Condition, NamespaceSelection
from stoker.api.inference_engine import Cache


def engine(**spec: object) -> InferenceEngine:
    return InferenceEngine.model_validate(
        {"metadata": {"name": "e", "namespace": "n"}, "spec": {"type": "LlamaCpp", **spec}}
    )


def test_fields_are_camel_case_outside_and_snake_case_inside() -> None:
    assert engine(startupDeadlineSeconds=60).spec.startup_deadline_seconds == 60
    assert "startupDeadlineSeconds" in engine(startupDeadlineSeconds=60).spec.model_dump(by_alias=True)


def test_from_is_a_python_keyword_and_still_the_fields_name() -> None:
    selection = NamespaceSelection.model_validate({"from": "All"})
    assert selection.from_ == "All"
    assert selection.model_dump(by_alias=True, exclude_none=True) == {"from": "All"}


@pytest.mark.parametrize(("given", "kept"), [(10, "10"), ("1.5Gi", "1.5Gi"), ("500m", "500m")])
def test_a_quantity_may_be_written_as_a_number(given: object, kept: str) -> None:
    assert Cache.model_validate({"size": given}).size == kept


@pytest.mark.parametrize("given", ["ten", "-1Gi", "1 Gi", True, 1.5, ""])
def test_what_is_not_a_quantity_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="size"):
        Cache.model_validate({"size": given})


def test_an_unknown_field_of_a_spec_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="sharedMemory"):
        engine(sharedMemory="1Gi")


def test_status_is_read_leniently_because_another_version_may_have_written_it() -> None:
    raw = {"metadata": {"name": "e"}, "spec": {"type": "LlamaCpp"}, "status": {"models": 3, "fromTheFuture": 1}}
    assert InferenceEngine.model_validate(raw).status.models == 3


def test_metadata_keeps_what_is_used_and_ignores_the_rest() -> None:
    raw = {
        "metadata": {"name": "e", "namespace": "n", "managedFields": [], "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"type": "LlamaCpp"},
    }
    resource = InferenceEngine.model_validate(raw)
    assert resource.key == ("n", "e")
    assert resource.metadata.creation_timestamp is not None


def test_objects_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        engine().spec.image = "x"  # type: ignore[misc]


def test_a_condition_survives_being_written_and_read() -> None:
    raw = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "Serving"}
    condition = Condition.model_validate(raw)
    assert Condition.model_validate(condition.model_dump(mode="json", by_alias=True)) == condition


def test_every_kind_is_found_by_its_name() -> None:
    assert {kind.info.kind: kind for kind in KINDS} == KIND_BY_NAME


def test_the_served_name_is_the_objects_own_unless_given() -> None:
    raw = {"metadata": {"name": "m"}, "spec": {"engineRef": {"name": "e"}, "source": {"uri": "https://x/m.gguf"}}}
    assert ModelDeployment.model_validate(raw).served_name == "m"
    raw["spec"]["servedModelName"] = "big"
    assert ModelDeployment.model_validate(raw).served_name == "big"


def test_a_gateway_needs_no_spec() -> None:
    assert ApiGateway.model_validate({"metadata": {"name": "g"}}).spec.replicas == 2
