from pathlib import Path

import pytest
from kindless.errors import KindlessError
from kindless.runtime import choose_runtime


def docker_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A fake docker command, first on PATH."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_docker_is_used_where_its_daemon_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo 28.0")
    monkeypatch.delenv("STOKER_RUNTIME", raising=False)
    assert choose_runtime() == "docker"


def test_a_docker_command_without_a_daemon_is_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo Cannot connect >&2; exit 1")
    monkeypatch.delenv("STOKER_RUNTIME", raising=False)
    assert choose_runtime() == "kindless"


def test_either_can_be_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo 28.0")
    monkeypatch.setenv("STOKER_RUNTIME", "kindless")
    assert choose_runtime() == "kindless"
    docker_that(tmp_path, monkeypatch, "echo Cannot connect >&2; exit 1")
    monkeypatch.setenv("STOKER_RUNTIME", "docker")
    with pytest.raises(KindlessError, match=r"STOKER_RUNTIME=docker, but .*Cannot connect"):
        choose_runtime()


def test_a_word_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_RUNTIME", "podman")
    with pytest.raises(KindlessError, match="use docker, kindless or auto"):
        choose_runtime()
