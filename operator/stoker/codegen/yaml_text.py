"""YAML as people write it: keys in the given order, long strings unfolded."""

from __future__ import annotations

from typing import Any

import yaml

HEADER = "# Written by `make generate` from {source}; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Indents lists inside mappings and writes repeated objects out instead of as anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(document: Any, *, source: str = "") -> str:
    """One document, with a header that names its source."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return (HEADER.format(source=source) if source else "") + text
