"""Whom the gateway lets use what, of the people who come by the web chat: real Open WebUI, real gateway, Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gateway.conftest import World
from gateway.pod import until
from webui.open_webui import SERVICE_KEY, OpenWebUI
from webui.test_attacks import user_token

BROWSER = Path(__file__).with_name("browser.py")
ROSA, PASSWORD = "rosa@example.com", "a-long-password"
REFUSAL = f"{ROSA} may not use the model `big`: the role `user` does not include it."


@pytest.fixture(scope="module")
def rosa(ui: OpenWebUI) -> str:
    return ui.add(ROSA, "user", PASSWORD)


def test_everybody_sees_the_same_models(ui: OpenWebUI, rosa: str) -> None:
    lists = [
        {model["id"] for model in ui.request("GET", "/api/models", token=token).json["data"]}
        for token in (rosa, ui.sign_in())
    ]
    assert lists[0] == lists[1] >= {"qwen", "big"}


def test_a_model_that_a_person_may_not_use_is_refused_in_words(ui: OpenWebUI, world: World, rosa: str) -> None:
    before = world.seen
    answer = ui.chat(rosa, "big")
    assert answer.status in (400, 403)
    assert REFUSAL in answer.body.decode()
    assert world.seen == before
    assert ui.chat(rosa, "qwen").status == 200
    # As an admin of the web chat he is one here.
    assert ui.chat(ui.sign_in(), "big").status == 200


def test_the_refusal_stands_in_the_chat(
    ui: OpenWebUI, world: World, rosa: str, chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    before = world.seen
    command = [sys.executable, BROWSER, chromium, ui.url, ROSA, PASSWORD, "Hello?", REFUSAL, tmp_path, "1", "big"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.seen == before


def test_a_group_of_the_web_chat_gives_its_people_a_role_with_the_next_click(
    ui: OpenWebUI, world: World, rosa: str
) -> None:
    with ui.group("lab", rosa):
        assert ui.chat(rosa, "big").status == 200
        assert ui.chat(rosa, "qwen").status in (400, 403)
    assert ui.chat(rosa, "qwen").status == 200


def test_an_account_that_says_it_is_pending_is_refused_by_the_gateway_too(world: World) -> None:

    before = world.seen
    headers = {"X-OpenWebUI-User-Jwt": user_token(role="pending")}
    answer = world.pod.request("POST", "/v1/chat/completions", {"model": "qwen", "messages": []}, SERVICE_KEY, headers)
    assert (answer.status, answer.error["code"]) == (403, "no_role")
    assert world.seen == before


def test_usage_is_the_persons_whether_he_comes_by_the_chat_or_with_a_key(
    ui: OpenWebUI, world: World, rosa: str
) -> None:
    """His own key says as owner what the web chat says as address; usage is kept by that (docs/usage.md)."""
    assert ui.chat(rosa, "qwen").status == 200
    assert world.pod.request("POST", "/v1/chat/completions", {"model": "qwen", "messages": []}, "sk-rosa").status == 200

    def keys() -> set[str]:
        lines = [line for line in world.pod.access_log() if line.get("user") == ROSA and line.get("model") == "qwen"]
        return {line["key"] for line in lines}

    until(lambda: keys() == {"gateway-webui", "rosa"}, "both are his in the log")
