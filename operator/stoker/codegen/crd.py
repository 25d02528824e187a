"""CustomResourceDefinitions of the four kinds."""

from __future__ import annotations

from typing import Any

from stoker.api import GROUP, VERSION, Resource
from stoker.api.base import KindInfo, PrinterColumn
from stoker.codegen.schema import Schema, model_description, model_schema


def build_crd(kind: type[Resource]) -> dict[str, Any]:
    """The CRD of one kind."""
    info = kind.info
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.singular,
                "shortNames": list(info.short_names),
                "categories": list(info.categories),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in info.columns],
                    "subresources": _subresources(info),
                    "schema": {"openAPIV3Schema": root_schema(kind)},
                }
            ],
        },
    }


def root_schema(kind: type[Resource]) -> Schema:
    """The whole object; of ``metadata`` a CRD may say nothing but that it is an object."""
    schema = model_schema(kind, skip=("metadata",))
    schema["properties"] = {
        "apiVersion": {"description": f"Version of this resource: {GROUP}/{VERSION}.", "type": "string"},
        "kind": {"description": f"Always {kind.info.kind}.", "type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    return {"description": model_description(kind), **schema}


def _column(column: PrinterColumn) -> dict[str, Any]:
    written: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        written["priority"] = column.priority
    if column.description:
        written["description"] = column.description
    return written


def _subresources(info: KindInfo) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}}
    if info.scale:
        subresources["scale"] = {
            "specReplicasPath": info.scale.spec_replicas,
            "statusReplicasPath": info.scale.status_replicas,
            "labelSelectorPath": info.scale.selector,
        }
    return subresources
