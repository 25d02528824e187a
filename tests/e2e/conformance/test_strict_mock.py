"""Client libraries and programs, unchanged, through real Envoy, policy and relay, against a strict mock of an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conformance.checks.world import World
from e2e.conformance.clients import clean_environment, run_checks
from e2e.conformance.programs import run_continue, run_file, run_opencode
from e2e.conformance.strict_engine import StrictEngine

CLIENTS = ("openai", "anthropic", "langchain", "llama_index", "litellm", "instructor")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_library_gets_what_it_asks_for(
    client: str, clients_python: Path, strict_world: World, tmp_path: Path
) -> None:
    outcomes = run_checks(clients_python, client, strict_world, tmp_path)
    assert len(outcomes) >= 4
    assert outcomes == dict.fromkeys(outcomes, "")


def test_the_newest_openai_client_gets_what_it_asks_for(strict_world: World, tmp_path: Path) -> None:
    """The one of Stoker's own development requirements; other libraries hold the one above back."""
    outcomes = run_checks(Path(sys.executable), "openai", strict_world, tmp_path)
    assert len(outcomes) >= 12
    assert outcomes == dict.fromkeys(outcomes, "")


def test_opencode_answers_a_prompt_and_runs_a_tool(
    programs: Path, strict_world: World, strict_engine: StrictEngine, tmp_path: Path
) -> None:
    done = run_opencode(programs, strict_world, tmp_path, "hi there")
    assert (done.returncode, "PONG chat" in done.stdout) == (0, True), done
    call = json.dumps({"command": "echo tool-ok-$((40+2))", "description": "say ok"})
    done = run_opencode(programs, strict_world, tmp_path, f"CALLTOOL bash {call}")
    assert (done.returncode, "TOOLRESULT: tool-ok-42" in done.stdout) == (0, True), done
    assert {path for path, _ in strict_engine.served} == {"/v1/chat/completions"}


def test_opencode_shows_what_a_wrong_key_is_refused_with(programs: Path, strict_world: World, tmp_path: Path) -> None:
    done = run_opencode(programs, strict_world, tmp_path, "hi", key="sk-wrong")
    assert done.returncode == 1
    assert "Incorrect API key provided" in done.stdout + done.stderr


def test_the_continue_program_answers_a_prompt(programs: Path, strict_world: World, tmp_path: Path) -> None:
    done = run_continue(programs, strict_world, tmp_path, "hi there")
    assert (done.returncode, "PONG chat" in done.stdout) == (0, True), done


@pytest.mark.parametrize("name", ["langchain.py", "python.py", "curl.sh"])
def test_a_script_that_is_made_ready_runs_as_it_is(
    name: str, clients_python: Path, strict_world: World, strict_engine: StrictEngine, tmp_path: Path
) -> None:
    program = clients_python if name.endswith(".py") else "sh"
    done = run_file(name, program, strict_world, tmp_path)
    assert done.returncode == 0, done
    assert "PONG" in done.stdout
    assert "Hello!" in done.stdout
    ((path, body),) = strict_engine.served
    assert (path, body["stream"]) == ("/v1/chat/completions", True)
    refused = run_file(name, program, strict_world, tmp_path, key="sk-wrong")
    assert refused.returncode != 0
    assert "Incorrect API key provided" in refused.stdout + refused.stderr


def test_a_check_that_goes_wrong_is_told(strict_world: World, tmp_path: Path) -> None:
    """The suite itself: a problem must not be lost between the two environments."""
    script = (
        "import world; world.run({'check_wrong': lambda world: 1 / 0, 'check_lacking': lambda world, audio_model: 1})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps({"url": "", "key": "", "model": "", "strict": True})],
        env={**clean_environment(tmp_path), "PYTHONPATH": str(Path(__file__).parent / "checks")},
        capture_output=True,
        text=True,
        check=True,
    )
    wrong, lacking = (json.loads(line) for line in done.stdout.splitlines())
    assert "ZeroDivisionError" in wrong["problem"]
    assert lacking == {"check": "lacking", "problem": "skipped"}
