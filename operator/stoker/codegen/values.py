"""The reference page of the chart's values, from the `# --` comments in values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

HEAD = "<!-- Written by `make generate` from charts/stoker/values.yaml; do not edit. -->\n"
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


@dataclass(frozen=True)
class Value:
    """One documented value of the chart."""

    path: str
    default: Any
    description: str


def documented_values(text: str) -> Iterator[Value]:
    """Values that carry a `# --` comment, in their order; the comment may go on over several lines."""
    defaults = yaml.safe_load(text)
    parents: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#") and comment:
            comment.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            indent = len(match[1])
            parents = [*(parent for parent in parents if parent[0] < indent), (indent, match[2])]
            if comment:
                path = [name for _, name in parents]
                yield Value(".".join(path), _lookup(defaults, path), " ".join(comment))
            comment = []


def build_page(text: str) -> str:
    """The Markdown page."""
    lines = [HEAD, "# Chart values\n", "| Value | Default | What it is |\n|---|---|---|"]
    for value in documented_values(text):
        default = f"`{json.dumps(value.default)}`".replace("|", "\\|")
        lines.append(f"| `{value.path}` | {default} | {value.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _lookup(document: Any, path: list[str]) -> Any:
    for name in path:
        document = document[name]
    return document
