"""Sign-in by the web chat's session; Open WebUI is a fake."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from unit.portal.conftest import CONFIG, Browser, FakeApiServer, FakeChat

from stoker.portal import chat as chat_module
from stoker.portal.chat import Chat
from stoker.portal.config import PortalConfig
from stoker.portal.directory import Directory

ADDRESS = "http://gateway-webui.team-a.svc:80"
# A role that is called as the chat calls people who wait gives them nothing.
TEAM = {"name": "team", "users": ["tina@example.com"], "groups": ["lab"]}
ROLES = [*CONFIG["roles"], TEAM, {"name": "pending"}]
CHAT_CONFIG = {**CONFIG, "roles": ROLES, "chatAddress": ADDRESS, "webUiUrl": "http://ai.example.com:30081"}


@pytest.fixture(autouse=True)
def with_chat(directory: Directory, chat: FakeChat, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.config = PortalConfig.model_validate(CHAT_CONFIG)
    chat.people = {
        "of-dave": ("dave@example.com", "user"),
        "of-tina": ("tina@example.com", "user"),
        "of-admin": ("root@example.com", "admin"),
        "of-newcomer": ("new@example.com", "pending"),
    }
    monkeypatch.setattr(chat_module, "FRESH_SECONDS", 0.0)


def carry(browser: Browser, token: str) -> None:
    browser._client.session.cookie_jar.update_cookies({"token": token})


async def test_who_is_signed_in_to_the_chat_continues_as_himself(
    browser: Browser, api: FakeApiServer, chat: FakeChat
) -> None:
    carry(browser, "of-dave")
    await browser.get("/portal/sign-in")
    assert "Continue as dave@example.com" in browser.text
    assert (await browser.get("/keys")).status == 303, "nobody is signed in before he says so"
    assert (await browser.post("/portal/chat", csrf="")).status == 303
    await browser.get("/keys")
    assert (await browser.post("/portal/keys", title="laptop", days="")).status == 200
    (made,) = [item for name, item in api.keys.items() if name.startswith("laptop-")]
    assert (made["spec"]["owner"], made["spec"]["role"]) == ("dave@example.com", "user")


@pytest.mark.parametrize(("token", "role"), [("of-dave", "user"), ("of-tina", "team"), ("of-admin", "admin")])
async def test_his_role_is_that_of_the_gateway(browser: Browser, token: str, role: str) -> None:
    carry(browser, token)
    await browser.post("/portal/chat", csrf="")
    assert browser.claims()["role"] == role


async def test_a_group_of_the_chat_gives_its_people_the_role_that_they_chat_with(
    browser: Browser, chat: FakeChat
) -> None:
    chat.groups["of-dave"] = ["others", "lab"]
    carry(browser, "of-dave")
    await browser.post("/portal/chat", csrf="")
    assert browser.claims()["role"] == "team"


async def test_an_admin_of_the_chat_in_a_group_that_has_a_role_has_that_one_as_when_he_chats(
    browser: Browser, chat: FakeChat
) -> None:
    chat.groups["of-admin"] = ["lab"]
    carry(browser, "of-admin")
    await browser.post("/portal/chat", csrf="")
    assert browser.claims()["role"] == "team"
    assert (await browser.get("/portal/admin")).status == 404


@pytest.mark.parametrize("token", ["", "forged", "of-newcomer", "x" * 5000])
async def test_nobody_else_comes_in(browser: Browser, token: str) -> None:
    if token:
        carry(browser, token)
    assert (await browser.post("/portal/chat", csrf="")).status == 403
    assert "stoker" not in browser.cookies()


async def test_who_signs_out_of_the_chat_is_signed_out_here(browser: Browser, chat: FakeChat) -> None:
    carry(browser, "of-dave")
    await browser.post("/portal/chat", csrf="")
    assert (await browser.get("/keys")).status == 200
    del chat.people["of-dave"]
    assert (await browser.get("/keys")).status == 303


@pytest.mark.parametrize("now", [("dave@example.com", "admin"), ("eve@example.com", "user"), ("dave@example.com", "pending")])  # fmt: skip
async def test_another_role_or_person_there_ends_the_session_here(
    browser: Browser, chat: FakeChat, now: tuple[str, str]
) -> None:
    carry(browser, "of-dave")
    await browser.post("/portal/chat", csrf="")
    chat.people["of-dave"] = now
    assert (await browser.get("/keys")).status == 303


async def test_the_portal_s_cookie_alone_is_not_enough(browsers: Any) -> None:
    dave, thief = browsers(), browsers()
    carry(dave, "of-dave")
    await dave.post("/portal/chat", csrf="")
    thief._client.session.cookie_jar.update_cookies({"stoker": dave.cookies()["stoker"]})
    assert (await thief.get("/keys")).status == 303
    carry(thief, "of-tina")
    assert (await thief.get("/keys")).status == 303


async def test_another_site_signs_nobody_in(browser: Browser) -> None:
    carry(browser, "of-dave")
    answer = await browser.post("/portal/chat", csrf="", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status == 400
    assert "stoker" not in browser.cookies()


async def test_where_people_sign_on_elsewhere_the_chat_is_not_asked(
    browser: Browser, directory: Directory, chat: FakeChat
) -> None:
    directory.config = PortalConfig.model_validate({**CHAT_CONFIG, "chatAddress": None})
    carry(browser, "of-dave")
    assert (await browser.post("/portal/chat", csrf="")).status == 403
    assert chat.asked == 0


async def test_the_chat_is_not_asked_for_each_click(
    browser: Browser, chat: FakeChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_module, "FRESH_SECONDS", 10.0)
    carry(browser, "of-dave")
    await browser.post("/portal/chat", csrf="")
    for _ in range(5):
        assert (await browser.get("/keys")).status == 200
    assert chat.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="not JSON"),
        httpx.Response(200, json=["dave@example.com"]),
        httpx.Response(200, json={"email": "dave@example.com"}),
        httpx.Response(503, json={"email": "dave@example.com", "role": "admin"}),
        httpx.Response(302, headers={"Location": "http://elsewhere/"}),
    ],
)
async def test_an_answer_that_cannot_be_read_is_nobody_and_not_remembered(
    answer: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PortalConfig.model_validate(CHAT_CONFIG)
    answers = [answer]
    good = {"auths": {"email": "dave@example.com", "role": "admin"}, "users": []}

    def ask(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else httpx.Response(200, json=good[request.url.path.split("/")[3]])

    chat = Chat(httpx.MockTransport(ask))
    monkeypatch.setattr(chat_module, "FRESH_SECONDS", 10.0)
    assert await chat.person(config, {"token": "t"}) is None
    assert await chat.person(config, {"token": "t"}) is not None, "asked again"


async def test_what_is_known_of_sessions_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "MOST_KNOWN", 3)
    chat = Chat(httpx.MockTransport(lambda _: httpx.Response(401)))
    for number in range(10):
        await chat.person(PortalConfig.model_validate(CHAT_CONFIG), {"token": f"guess {number}"})
    assert len(chat._known) == 3
