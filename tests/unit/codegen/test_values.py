"""The chart's values: documented, and all of them known to the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stoker import __version__
from stoker.codegen.values import documented_values

CHART = Path(__file__).parents[3] / "charts/stoker"
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

TEXT = """\
image:
  # -- First.
  # Goes on.
  tag: ""
# no documentation
hidden: 1
# -- Last.
last: [a]
"""


def leaves(document: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of values; an object that the schema leaves open is one value."""
    for name, value in document.items():
        below = schema["properties"][name]
        if isinstance(value, dict) and "properties" in below and value:
            yield from leaves(value, below, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_a_comment_may_go_on_over_lines_and_ends_at_its_value() -> None:
    assert [(value.path, value.default, value.description) for value in documented_values(TEXT)] == [
        ("image.tag", "", "First. Goes on."),
        ("last", ["a"], "Last."),
    ]


def test_every_value_is_documented() -> None:
    documented = {value.path for value in documented_values(VALUES)}
    undocumented = {
        leaf
        for leaf in leaves(yaml.safe_load(VALUES), SCHEMA)
        if not any(leaf == path or leaf.startswith(f"{path}.") for path in documented)
    }
    assert undocumented == set()


def test_the_schema_refuses_unknown_values_everywhere() -> None:
    def objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "properties" in schema:
            yield schema
            for below in schema["properties"].values():
                yield from objects(below)

    assert all(schema["additionalProperties"] is False for schema in objects(SCHEMA))


def test_the_charts_app_version_is_the_packages() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
