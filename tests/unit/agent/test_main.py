"""The process as the pod starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.agent import main as main_module
from stoker.agent.config import CONFIG_VARIABLE
from stoker.agent.main import main


def start(**row: Any) -> subprocess.Popen[str]:
    document = {"model": "m", "enginePort": 1, "host": "127.0.0.1", "port": 0} | row
    return subprocess.Popen(
        [sys.executable, "-m", "stoker", "agent"],
        env=os.environ
        | {CONFIG_VARIABLE: json.dumps(document), "PYTHONPATH": str(Path(main_module.__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_sigterm_ends_an_agent_without_drains_at_once() -> None:
    process = start()
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "serving"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(output)["event"] == "stopping"


def test_the_agent_imports_nothing_heavy_and_nothing_else_of_ours() -> None:
    code = (
        "import sys, stoker.agent.main\n"
        "heavy = {'pydantic', 'httpx', 'kubernetes', 'kopf', 'structlog', 'aiohttp'} & set(sys.modules)\n"
        "ours = {m for m in sys.modules if m.startswith('stoker.') and not m.startswith('stoker.agent')}\n"
        "sys.exit(repr((heavy, ours)) if heavy or ours else 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(main_module.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_row_ends_the_process_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    assert main() == 2
    assert CONFIG_VARIABLE in capsys.readouterr().out
