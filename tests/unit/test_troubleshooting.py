"""Every reason that can stand in a condition is explained where people look it up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("desired", "engines", "models", "status", "reconcile", "cluster", "fetch")
SUBJECTS = ("Engine", "Gateway", "WebUI")
"""What `{workload.subject}` stands for."""


def reasons_in_code() -> Iterator[str]:
    for package in PACKAGES:
        for path in (ROOT / "operator" / "stoker" / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    position = {"Stalled": 0, "Waiting": 0, "Cause": 0, "Verdict": 1, "Problem": 0, "_fault": 0}.get(
                        node.func.id
                    )
                    if position is not None and len(node.args) > position:
                        yield from reasons_of(node.args[position])


def reasons_of(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        suffix = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        yield from (subject + suffix for subject in SUBJECTS)


def test_every_reason_of_the_code_stands_in_the_troubleshooting_page() -> None:
    explained = set(re.findall(r"^\| `([A-Za-z]+)`", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE))
    used = set(reasons_in_code())
    assert len(used) > 20
    assert used - explained == set()
