"""The structural schemas: what the API server takes, from what the models say."""

# ruff: noqa: RUF012 - pydantic copies defaults

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from stoker.api.base import (
    ApiModel,
    Cel,
    Conditions,
    KubernetesList,
    KubernetesObject,
    LocalObjectReference,
    Quantity,
    StatusModel,
)
from stoker.codegen.schema import SchemaError, model_schema


class Inner(ApiModel):
    """A part."""

    colour: Literal["Red", "Green"] = "Red"
    """Its colour."""
    note: str | None = None
    """A note."""


class Everything(ApiModel):
    """One field of each sort."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (Cel("has(self.size)", "size is needed", field_path=".size"),)

    engine_ref: LocalObjectReference
    """A reference."""
    label: Annotated[str, Field(min_length=1, max_length=9, pattern="^a")] | None = None
    """A bounded, optional text."""
    count: Annotated[int, Field(ge=1, le=5)] = 2
    """A bounded number."""
    on: bool = False
    """A switch."""
    at: datetime | None = None
    """A time."""
    size: Quantity = "1Gi"
    """A quantity."""
    words: Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=4)] = []
    """A bounded list of bounded texts."""
    names: list[str] = ["*"]
    """A list with a promised default."""
    labels: Annotated[dict[str, str], Field(max_length=7)] | None = None
    """A bounded map."""
    env: KubernetesList | None = None
    """A list that Kubernetes defines."""
    affinity: KubernetesObject | None = None
    """An object that Kubernetes defines."""
    inner: Inner = Inner()
    """A part with defaults."""
    marked: Annotated[str, Cel("self != 'x'", "not x")] | None = None
    """A field with a rule of its own."""


def field(name: str) -> dict[str, Any]:
    return {key: value for key, value in model_schema(Everything)["properties"][name].items() if key != "description"}


@pytest.mark.parametrize(
    ("name", "schema"),
    {
        "label": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^a"},
        "count": {"type": "integer", "minimum": 1, "maximum": 5, "default": 2},
        "on": {"type": "boolean", "default": False},
        "at": {"type": "string", "format": "date-time"},
        "words": {"type": "array", "maxItems": 4, "items": {"type": "string", "maxLength": 3}},
        "names": {"type": "array", "items": {"type": "string"}, "default": ["*"]},
        "labels": {"type": "object", "maxProperties": 7, "additionalProperties": {"type": "string"}},
        "env": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "affinity": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "marked": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'", "message": "not x"}]},
    }.items(),
)
def test_a_field_keeps_its_type_bounds_and_promised_default(name: str, schema: dict[str, Any]) -> None:
    assert field(name) == schema


def test_a_quantity_may_be_a_number_or_a_text() -> None:
    schema = field("size")
    assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert schema["x-kubernetes-int-or-string"] is True
    assert "type" not in schema


def test_the_default_of_a_part_is_written_out_because_rules_see_it_before_nested_defaults() -> None:
    assert field("inner")["default"] == {"colour": "Red"}


def test_only_fields_without_default_are_required() -> None:
    assert model_schema(Everything)["required"] == ["engineRef"]


def test_a_rule_carries_message_and_field_path() -> None:
    assert model_schema(Everything)["x-kubernetes-validations"] == [
        {"rule": "has(self.size)", "message": "size is needed", "fieldPath": ".size"}
    ]


def test_status_has_no_defaults_because_the_operator_writes_it_whole() -> None:
    class SomeStatus(StatusModel):
        """A status."""

        models: int = 0
        """How many."""
        part: Inner = Inner()
        """A part."""

    properties = model_schema(SomeStatus)["properties"]
    assert "default" not in properties["models"]
    assert "default" not in properties["part"]


def test_conditions_merge_by_type() -> None:
    class SomeStatus(StatusModel):
        """A status."""

        conditions: Conditions = []
        """What is the case."""

    schema = model_schema(SomeStatus)["properties"]["conditions"]
    assert schema["x-kubernetes-list-type"] == "map"
    assert schema["x-kubernetes-list-map-keys"] == ["type"]
    assert set(schema["items"]["required"]) >= {"type", "status"}
    assert schema["items"]["properties"]["lastTransitionTime"]["format"] == "date-time"


def test_a_field_without_docstring_is_refused_by_name() -> None:
    class Silent(ApiModel):
        """Says nothing of its field."""

        name: str

    with pytest.raises(SchemaError, match=r"Silent\.name has no docstring"):
        model_schema(Silent)


def test_a_union_of_types_is_refused_by_name() -> None:
    class Either(ApiModel):
        """Cannot decide."""

        value: int | str
        """One or the other."""

    with pytest.raises(SchemaError, match=r"Either\.value"):
        model_schema(Either)


def test_an_exclusive_bound_is_refused_by_name() -> None:
    class Strict(ApiModel):
        """Uses gt."""

        value: Annotated[int, Field(gt=0)]
        """Above nothing."""

    with pytest.raises(SchemaError, match=r"Strict\.value: use ge and le"):
        model_schema(Strict)
