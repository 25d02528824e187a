"""The start scripts, run by a real shell beside fakes of the commands they call."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stoker.engines import ENGINES, EngineRequest

# Writes down how it was called; "serve" stays until it is told to end, and "list" works from the second call on.
FAKE_OLLAMA = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$1" in
  serve) trap 'echo stopped >> "$CALLS"; exit 0' TERM; while :; do sleep 0.05; done ;;
  list) [ "$(grep -c '^list' "$CALLS")" -ge 2 ] ;;
  pull) [ "$2" != gone ] ;;
esac
"""
# "ps" fails as soon as the file is there: the daemon is gone.
FAKE_LMS = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" != ps ] || [ ! -e "$CALLS.gone" ]
"""


@contextmanager
def started(
    kind: str, tmp_path: Path, request: EngineRequest, command: str, fake: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The script of an engine, with one fake command in its path."""
    script = next(text for path, text in ENGINES[kind].launch(request).files.items() if path.endswith(".sh"))  # type: ignore[index]
    (tmp_path / "start.sh").write_text(script)
    program = tmp_path / "bin" / command
    program.parent.mkdir()
    program.write_text(fake)
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
    }
    words = ["/bin/sh", str(tmp_path / "start.sh"), *request.args]
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        # Also what the script left behind, when a test fails.
        with_group_of(process, signal.SIGKILL)
        process.wait()


def with_group_of(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def calls_until(tmp_path: Path, line: str, timeout: float = 60) -> list[str]:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        if any(call.startswith(line) for call in calls):
            return calls
        time.sleep(0.05)
    raise AssertionError(f"{line!r} never came: {calls}")


@pytest.fixture
def library() -> EngineRequest:
    return EngineRequest("m", shape="Library", reference="qwen3:8b", aliases=("x",), context_length=4096)


def test_ollama_is_served_filled_loaded_and_stopped_by_a_signal_with_a_fake_ollama(
    tmp_path: Path, library: EngineRequest
) -> None:
    with started("Ollama", tmp_path, library, "ollama", FAKE_OLLAMA) as process:
        calls = calls_until(tmp_path, "run m")
        assert calls[0] in ("serve", "list")
        assert [call for call in calls if call not in ("serve", "list")] == [
            "pull qwen3:8b", "cp qwen3:8b m", "cp m x", "run m ",
        ]  # fmt: skip
        process.terminate()
        process.wait(60)
        assert calls_until(tmp_path, "stopped")


def test_a_model_that_ollama_does_not_have_ends_the_container_with_a_fake_ollama(tmp_path: Path) -> None:
    request = EngineRequest("m", shape="Library", reference="gone", context_length=4096)
    with started("Ollama", tmp_path, request, "ollama", FAKE_OLLAMA) as process:
        assert process.wait(60) != 0


def test_lm_studio_is_started_loaded_and_stopped_by_a_signal_with_a_fake_lms(tmp_path: Path) -> None:
    request = EngineRequest("m", model_path="/models/d/a b.gguf", context_length=4096, deployment_args=("--x",))
    with started("LMStudio", tmp_path, request, "lms", FAKE_LMS) as process:
        calls = calls_until(tmp_path, "ps")
        assert calls[:4] == [
            "daemon up --json",
            "server start --port 8080 --bind 0.0.0.0",
            "import /models/d/a b.gguf --user-repo stoker/model --symbolic-link -y",
            "load stoker/model --identifier m --context-length 4096 --gpu off --parallel 4 --yes --x",
        ]
        process.terminate()
        assert process.wait(60) == 0
        assert calls_until(tmp_path, "daemon down")


def test_when_the_daemon_is_gone_the_container_ends_with_a_fake_lms(tmp_path: Path) -> None:
    (tmp_path / "calls.gone").touch()
    request = EngineRequest("m", model_path="/models/d/m.gguf", context_length=4096)
    with started("LMStudio", tmp_path, request, "lms", FAKE_LMS) as process:
        assert process.wait(60) == 1
