"""Structural OpenAPI schemas from the pydantic models, as the API server takes them.

The models' annotations are walked directly: pydantic's own JSON schema has `$ref`, `anyOf` with null, `const` and
`additionalProperties: false`, none of which a structural schema may hold.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stoker.api.base import Cel, IntOrString, MapKeys, PreserveUnknown, StatusModel

Schema = dict[str, Any]

_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}


class SchemaError(Exception):
    """A model uses something that a structural schema cannot say; the text names the field."""


def model_schema(model: type[BaseModel], *, skip: Iterable[str] = ()) -> Schema:
    """An object with the model's fields by their Kubernetes names."""
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for name, field in model.model_fields.items():
        alias = field.alias or name
        if alias in skip:
            continue
        where = f"{model.__name__}.{name}"
        properties[alias] = {"description": _description(field, where), **_field_schema(model, field, where)}
        if field.is_required():
            required.append(alias)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    _add_rules(schema, getattr(model, "cel_rules", ()))
    return schema


def model_description(model: type[BaseModel]) -> str:
    """The model's docstring as one paragraph."""
    return " ".join((model.__doc__ or "").split())


def _description(field: FieldInfo, where: str) -> str:
    nested = _model_of(field)
    text = field.description or (model_description(nested) if nested else "")
    if not text:
        raise SchemaError(f"{where} has no docstring: kubectl explain would show nothing")
    return text


def _field_schema(model: type[BaseModel], field: FieldInfo, where: str) -> Schema:
    schema = _type_schema(field.annotation, field.metadata, where)
    # Status is written by the operator, whole: defaults there would only lie.
    if not any(issubclass(part, StatusModel) for part in (model, _model_of(field) or model)):
        default = promised_default(field)
        if default is not None:
            schema["default"] = default
    return schema


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def promised_default(field: FieldInfo) -> Any:
    """The default that belongs to the contract, or None; absent values and empty lists stay absent.

    An object's default is written out: the API server runs CEL rules on it before it fills in nested defaults.
    """
    return None if field.default is PydanticUndefined else _plain_value(field.default)


def _plain_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        plain = {field.alias or name: _plain_value(getattr(value, name)) for name, field in fields.items()}
        return {name: part for name, part in plain.items() if part is not None}
    return None if value == [] else value


def _type_schema(annotation: Any, metadata: Iterable[Any], where: str) -> Schema:
    marks = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        marks = [*inner, *marks]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        if len(members) != 1:
            raise SchemaError(f"{where}: a structural schema has no union of types; use optional fields and a CEL rule")
        return _type_schema(members[0], marks, where)
    constraints = list(_flatten(marks))
    preserve = next((mark for mark in constraints if isinstance(mark, PreserveUnknown)), None)
    schema = _preserved(preserve) if preserve else _plain_schema(annotation, where)
    for constraint in constraints:
        _add_constraint(schema, constraint, where)
    _add_rules(schema, [mark for mark in constraints if isinstance(mark, Cel)])
    return schema


def _preserved(mark: PreserveUnknown) -> Schema:
    anything: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"type": "array", "items": anything} if mark.item == "array" else anything


def _plain_schema(annotation: Any, where: str) -> Schema:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS:
        return dict(_SCALARS[annotation])
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _item_schema(arguments[0], f"{where}[]")}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _item_schema(arguments[1], f"{where}{{}}")}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return model_schema(annotation)
    raise SchemaError(f"{where}: no structural schema for {annotation}")


def _item_schema(annotation: Any, where: str) -> Schema:
    schema = _type_schema(annotation, (), where)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"description": model_description(annotation), **schema}
    return schema


def _flatten(marks: Iterable[Any]) -> Iterator[Any]:
    for mark in marks:
        if isinstance(mark, FieldInfo):
            yield from _flatten(mark.metadata)
        elif isinstance(mark, annotated_types.GroupedMetadata):
            yield from _flatten(mark)
        else:
            yield mark


_LENGTHS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}


def _add_constraint(schema: Schema, constraint: Any, where: str) -> None:
    least, most = _LENGTHS.get(schema.get("type", "string"), ("minProperties", "maxProperties"))
    match constraint:
        case annotated_types.MinLen(min_length=bound):
            schema[least] = bound
        case annotated_types.MaxLen(max_length=bound):
            schema[most] = bound
        case annotated_types.Ge(ge=bound):
            schema["minimum"] = bound
        case annotated_types.Le(le=bound):
            schema["maximum"] = bound
        case annotated_types.Gt() | annotated_types.Lt() | annotated_types.MultipleOf():
            raise SchemaError(f"{where}: use ge and le, which read the same in the CRD")
        case IntOrString():
            del schema["type"]
            schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
            schema["x-kubernetes-int-or-string"] = True
        case MapKeys(keys=keys):
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = list(keys)
        case _ if getattr(constraint, "pattern", None):
            schema["pattern"] = constraint.pattern


def _add_rules(schema: Schema, rules: Iterable[Cel]) -> None:
    written = [_rule(rule) for rule in rules]
    if written:
        schema["x-kubernetes-validations"] = written


def _rule(rule: Cel) -> Schema:
    written: Schema = {"rule": rule.rule, "message": rule.message}
    if rule.field_path:
        written["fieldPath"] = rule.field_path
    return written
