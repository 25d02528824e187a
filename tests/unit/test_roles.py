"""``stoker ROLE``, as processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stoker
from stoker.__main__ import ROLES

SOURCE = str(Path(stoker.__file__).parents[1])


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "stoker", *arguments]
    return subprocess.run(
        command, env={"PYTHONPATH": SOURCE, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("role", "environment", "missing"),
    [
        ("gateway", {"STOKER_GATEWAY_NAMESPACE": "x"}, "STOKER_GATEWAY_NAME"),
        ("gateway", {"STOKER_GATEWAY_NAME": "x"}, "STOKER_GATEWAY_NAMESPACE"),
        ("usage", {"STOKER_USAGE_NAMESPACE": "x", "STOKER_USAGE_GATEWAY": "x"}, "STOKER_USAGE_TOKEN_FILE"),
        ("portal", {}, "STOKER_PORTAL_SECRETS"),
    ],
)
def test_a_role_that_is_not_told_what_it_needs_names_it_and_ends(
    role: str, environment: dict[str, str], missing: str
) -> None:
    done = run(role, **environment)
    assert (done.returncode, done.stderr) == (2, f"stoker {role}: {missing} is not set\n")


@pytest.mark.parametrize("arguments", [(), ("cook",), ("gateway", "--help"), ("operator", "now")])
def test_anything_but_one_role_is_answered_with_all_roles(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert all(role in done.stderr for role in ROLES)
    assert "environment" in done.stderr


def test_help_is_no_mistake() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(role in done.stdout for role in ROLES)
