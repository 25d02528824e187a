import os
from pathlib import Path

import pytest
from kindless import preflight


def test_without_root_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (problem,) = preflight.find_problems()
    assert "needs root" in problem
    assert "--control-plane-only" in problem


def test_missing_commands_are_told_as_debian_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(preflight, "CNI_PLUGINS", tmp_path)
    packages = preflight.missing_packages()
    assert {"containerd", "containernetworking-plugins", "iproute2", "nftables"} <= set(packages)
    assert len(packages) == len(set(packages))


def test_without_apt_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = preflight.install_missing_packages(["runc", "socat"])
    assert problem == "missing packages, and there is no apt-get to install them: runc socat"


def test_a_failing_command_is_told_by_its_last_line() -> None:
    assert preflight.failure(["sh", "-c", "echo first >&2; echo last >&2; exit 1"]) == "last"
    assert preflight.failure(["false"]) == "exit status 1"
    assert preflight.failure(["true"]) is None
