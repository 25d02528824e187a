"""The CRDs of the four kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stoker.api import KINDS, ApiGateway, ModelDeployment, Resource
from stoker.codegen.crd import build_crd

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.info.kind)


def version(kind: type[Resource]) -> dict[str, Any]:
    (only,) = build_crd(kind)["spec"]["versions"]
    return only


def root(kind: type[Resource]) -> dict[str, Any]:
    return version(kind)["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and everything below it."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


@every_kind
def test_every_field_has_a_description(kind: type[Resource]) -> None:
    silent = [
        path
        for path, schema in nodes(root(kind), kind.info.kind)
        if not path.endswith(("[]", ".metadata")) and not schema.get("description")
    ]
    assert silent == []


@every_kind
def test_nothing_that_a_structural_schema_may_not_hold(kind: type[Resource]) -> None:
    forbidden = {"$ref", "$defs", "const", "oneOf", "allOf", "not", "nullable", "title", "discriminator"}
    for path, schema in nodes(root(kind), kind.info.kind):
        assert not forbidden & schema.keys(), path
        assert ("anyOf" in schema) == bool(schema.get("x-kubernetes-int-or-string")), path
        assert schema.get("additionalProperties") is not False, path


@every_kind
def test_rules_have_a_message_of_one_line(kind: type[Resource]) -> None:
    rules = [rule for _, schema in nodes(root(kind), "") for rule in schema.get("x-kubernetes-validations", [])]
    assert rules
    for rule in rules:
        assert rule["message"]
        assert "\n" not in rule["message"]


@every_kind
def test_columns_come_in_one_order_reference_ready_reason_then_age(kind: type[Resource]) -> None:
    names = [column["name"] for column in version(kind)["additionalPrinterColumns"] if not column.get("priority")]
    assert names[1:3] == ["Ready", "Reason"]
    assert names[-1] == "Age"
    wide = [column["name"] for column in version(kind)["additionalPrinterColumns"] if column.get("priority")]
    assert "Message" in wide


@every_kind
def test_status_is_a_subresource(kind: type[Resource]) -> None:
    assert version(kind)["subresources"]["status"] == {}
    assert "status" not in root(kind).get("required", [])
    assert "default" not in root(kind)["properties"]["status"]


def test_names_short_names_and_category() -> None:
    names = {kind.info.kind: build_crd(kind)["spec"]["names"] for kind in KINDS}
    assert {kind: name["shortNames"] for kind, name in names.items()} == {
        "InferenceEngine": ["ie"],
        "ModelDeployment": ["smd"],
        "ApiGateway": ["sgw"],
        "ApiKey": ["sak"],
    }
    assert all(name["categories"] == ["stoker"] for name in names.values())
    assert all(build_crd(kind)["spec"]["scope"] == "Namespaced" for kind in KINDS)


def test_a_model_deployment_can_be_scaled() -> None:
    assert version(ModelDeployment)["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert "scale" not in version(ApiGateway)["subresources"]


def test_a_gateway_needs_no_spec() -> None:
    assert "required" not in root(ApiGateway)
    assert root(ApiGateway)["properties"]["spec"]["default"]["replicas"] == 2
