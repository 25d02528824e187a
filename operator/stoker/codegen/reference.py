"""Reference pages: one a kind, every field with type, default, bounds and rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from stoker.api import API_VERSION, KINDS, Resource
from stoker.codegen.crd import root_schema
from stoker.codegen.schema import Schema, model_description

HEAD = "<!-- Written by `make generate` from operator/stoker/api/{module}.py; do not edit. -->\n"


@dataclass(frozen=True)
class Row:
    """One field of a reference table."""

    path: str
    schema: Schema
    required: bool


def build_page(kind: type[Resource]) -> str:
    """The Markdown page of one kind."""
    info, schema = kind.info, root_schema(kind)
    short = ", ".join(f"`{name}`" for name in info.short_names)
    parts = [
        HEAD.format(module=page_name(kind).replace("-", "_")),
        f"# {info.kind}\n\n{schema['description']}\n",
        f"`apiVersion: {API_VERSION}`, `kind: {info.kind}`, namespaced. "
        f"`kubectl get {info.plural}` (short {short}, category `stoker`); `kubectl explain {info.singular}.spec`."
        + (" `kubectl scale` works.\n" if info.scale else "\n"),
        _rules("Rules for the whole object", schema),
    ]
    for part, title in (("spec", "Spec"), ("status", "Status")):
        section = schema["properties"][part]
        parts.append(f"## {title}\n\n{section['description']}\n")
        parts.append(_table(list(_rows(section, "")), with_default=part == "spec"))
        parts.append(_section_rules(section))
    return "\n".join(part for part in parts if part)


def build_index() -> str:
    """The page that leads to the others."""
    pages = [f"- [{kind.info.kind}]({page_name(kind)}.md): {model_description(kind)}" for kind in KINDS]
    pages.append("- [Chart values](chart-values.md)")
    pages.append("- [The gateway's API](openapi.json), as OpenAPI 3.1; every gateway serves it at `/openapi.json`")
    return "<!-- Written by `make generate`; do not edit. -->\n\n# Reference\n\n" + "\n".join(pages) + "\n"


def page_name(kind: type[Resource]) -> str:
    """`ModelDeployment` → `model-deployment`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.info.kind).lower()


def _rows(schema: Schema, prefix: str) -> Iterator[Row]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield Row(path, field, name in required)
        yield from _rows(field, f"{path}.")
        yield from _rows(field.get("items", {}), f"{path}[].")


def _table(rows: list[Row], *, with_default: bool) -> str:
    head = (
        "| Field | Type | Default | What it is |\n|---|---|---|---|"
        if with_default
        else "| Field | Type | What it is |\n|---|---|---|"
    )
    lines = [head]
    for row in rows:
        cells = [f"`{row.path}`", _type(row.schema)]
        if with_default:
            cells.append("**required**" if row.required else _default(row.schema))
        cells.append(_prose(row.schema.get("description", "")))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    """Keep `<gateway>` from being taken for HTML; between backticks it is safe."""
    parts = text.split("`")
    return "`".join(part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts))


def _default(schema: Schema) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def _type(schema: Schema) -> str:
    bounds = _bounds(schema)
    return _bare_type(schema) + (f" ({bounds})" if bounds else "")


def _bare_type(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"]).replace("\\|", "/")
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return "object as in Kubernetes"
    if schema["type"] == "array":
        return f"list of {_bare_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_bare_type(schema['additionalProperties'])}"
    return str(schema["type"])


def _bounds(schema: Schema) -> str:
    parts = []
    if "minimum" in schema or "maximum" in schema:
        parts.append(f"{schema.get('minimum', '')} to {schema.get('maximum', '')}".strip())
    for key, unit in (("maxItems", "items"), ("maxProperties", "entries"), ("maxLength", "characters")):
        if key in schema and not schema.get("x-kubernetes-int-or-string"):
            parts.append(f"at most {schema[key]} {unit}")
    if "pattern" in schema and not schema.get("x-kubernetes-int-or-string"):
        parts.append(f"matches `{schema['pattern']}`")
    return ", ".join(parts)


def _section_rules(schema: Schema) -> str:
    messages = [f"- {_prose(message)}" for message in _messages(schema)]
    return (
        "### Rules\n\nChecked by the API server; a refusal reads as written here.\n\n" + "\n".join(messages) + "\n"
        if messages
        else ""
    )


def _rules(title: str, schema: Schema) -> str:
    messages = [f"- {_prose(rule['message'])}" for rule in schema.get("x-kubernetes-validations", [])]
    return f"{title}:\n\n" + "\n".join(messages) + "\n" if messages else ""


def _messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _messages(field)
        yield from _messages(field.get("items", {}))
