"""Sign-on by a proxy in front: whom its headers name is signed in, with his groups; the NetworkPolicy lets in nobody else (tests/unit/desired)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.conftest import World
from gateway.pod import Answer
from webui.open_webui import EMAIL, PASSWORD, OpenWebUI

HEADERS = {"email": "X-Forwarded-Email", "groups": "X-Forwarded-Groups", "role": "X-Forwarded-Role"}


@pytest.fixture(scope="module")
def ui(program: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    trusted = {"from": [{"podSelector": {"matchLabels": {"app": "oauth2-proxy"}}}], **HEADERS}
    spec = {"webUI": {"trustedHeader": trusted}}
    ui = OpenWebUI(program, tmp_path_factory.mktemp("trusted"), world.pod.port, spec=spec)
    ui.start()
    try:
        ui.wait_ready()
        yield ui
    finally:
        ui.stop()


def come_by_proxy(ui: OpenWebUI, body: dict[str, str] | None = None, **said: str) -> Answer:
    headers = {HEADERS[what]: value for what, value in said.items()}
    return ui.request("POST", "/api/v1/auths/signin", body or {"email": "", "password": ""}, headers=headers)


def test_whom_the_proxy_names_is_signed_in_with_his_role(ui: OpenWebUI) -> None:
    signed = come_by_proxy(ui, email="tim@example.com", role="user")
    assert (signed.status, signed.json["email"], signed.json["role"]) == (200, "tim@example.com", "user")


def test_of_whom_it_says_no_role_waits(ui: OpenWebUI) -> None:
    assert come_by_proxy(ui, email="new@example.com").json["role"] == "pending"


def test_his_groups_give_him_a_role_at_the_gateway(ui: OpenWebUI) -> None:
    def chats(group: str) -> list[bool]:
        token = come_by_proxy(ui, email="lea@example.com", role="user", groups=group).json["token"]
        return [ui.chat(token, model).status == 200 for model in ("qwen", "big")]

    ui.request("POST", "/api/v1/groups/create", {"name": "lab", "description": "d"}, come_by_proxy(ui, email=EMAIL, role="admin").json["token"])  # fmt: skip
    assert chats("lab") == [False, True]
    assert chats("others") == [True, False]


@pytest.mark.parametrize(
    "body", [{"email": EMAIL, "password": PASSWORD}, {"email": "tim@example.com", "password": "x"}]
)
def test_without_the_proxys_word_nobody_comes_in_not_even_by_password(ui: OpenWebUI, body: dict[str, str]) -> None:
    answer = come_by_proxy(ui, body)
    assert answer.status in (400, 401, 403)
    assert "token" not in answer.json
