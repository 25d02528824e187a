"""Sign-on by a real OpenID provider: who comes into the web chat, as what, and that the API takes the same issuer's tokens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from gateway.pod import until
from webui.open_webui import EMAIL, PASSWORD
from webui.sign_on import SignOn, sign_on_with

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def sign_on(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignOn]:
    with sign_on_with(program, tmp_path_factory.mktemp("oidc"), rolesClaim="realm_access.roles") as made:
        yield made


@pytest.mark.parametrize(("user", "role"), [("carol", "admin"), ("dave", "user"), ("mallory", "pending")])
def test_roles_of_the_identity_provider_decide_who_is_what(sign_on: SignOn, user: str, role: str) -> None:
    assert sign_on.role(sign_on.session(user)) == role


def test_whose_roles_are_others_is_refused(sign_on: SignOn) -> None:
    assert not sign_on.sign_in("eve")
    users = sign_on.ui.request("GET", "/api/v1/users/", token=sign_on.session("carol")).body
    assert b"eve@example.com" not in users


def test_who_has_no_role_waits_and_chats_with_nobody(sign_on: SignOn) -> None:
    before = sign_on.world.seen
    assert sign_on.ui.chat(sign_on.session("mallory")).status in (401, 403)
    assert sign_on.world.seen == before


def test_a_person_is_the_same_in_the_web_chat_and_at_the_api(sign_on: SignOn) -> None:
    assert sign_on.ui.chat(sign_on.session("dave")).status == 200
    sign_on.wait_for_keys()
    assert sign_on.ask_api(sign_on.provider.token("dave")).status == 200

    def callers() -> set[str]:
        lines = [line for line in sign_on.world.pod.access_log() if line.get("user") == "dave@example.com"]
        return {line["caller"] for line in lines}

    until(lambda: len(callers()) == 2, "the log names him by both ways")


def test_whose_address_is_not_verified_is_refused_at_the_api_and_open_webui_does_not_look(sign_on: SignOn) -> None:
    sign_on.wait_for_keys()
    answer = sign_on.ask_api(sign_on.provider.token("uma"))
    assert answer.status == 401
    assert "uma@example.com is not verified" in answer.error["message"]
    # As docs/web-ui.md says: there is no setting for it.
    assert sign_on.role(sign_on.session("uma")) == "user"


def test_the_api_judges_tokens_of_the_issuer_by_their_roles(sign_on: SignOn) -> None:
    sign_on.wait_for_keys()
    for user in ("mallory", "eve"):
        answer = sign_on.ask_api(sign_on.provider.token(user))
        assert (answer.status, answer.error["code"]) == (403, "no_role")
    assert sign_on.ask_api(sign_on.provider.token("carol", audience="another")).status == 401


def test_passwords_open_nothing_beside_sign_on(sign_on: SignOn) -> None:
    answer = sign_on.ui.request("POST", "/api/v1/auths/signin", {"email": EMAIL, "password": PASSWORD})
    assert answer.status == 403


def test_a_wrong_password_at_the_identity_provider_opens_nothing(sign_on: SignOn) -> None:
    assert not sign_on.sign_in("dave", "guessed")


def test_the_way_there_is_bound_to_the_browser_and_leads_back_to_this_page_only(sign_on: SignOn) -> None:
    evil = "https://evil.example.com"
    start = httpx.get(
        f"{sign_on.ui.url}/oauth/oidc/login", params={"redirect": evil, "redirect_uri": evil, "next": evil}
    )
    asked = parse_qs(urlsplit(start.headers["location"]).query)
    assert start.headers["location"].startswith(sign_on.provider.issuer)
    assert asked["redirect_uri"] == [f"{sign_on.ui.url}/oauth/oidc/callback"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["state"]
    # Somebody else's answer, or a made-up one, in a browser that never asked.
    for query in ({"code": "stolen", "state": asked["state"][0]}, {"code": "stolen", "state": "forged"}, {}):
        back = httpx.get(f"{sign_on.ui.url}/oauth/oidc/callback", params=query)
        assert "token" not in back.cookies
        assert not back.headers.get("location", "").startswith(evil)


def test_another_role_counts_at_the_next_sign_in_and_in_new_tokens_at_once(sign_on: SignOn) -> None:
    session = sign_on.session("dave")
    sign_on.provider.set_roles("dave", "visitor")
    try:
        assert sign_on.ask_api(sign_on.provider.token("dave")).status == 403
        assert not sign_on.sign_in("dave")
        # As docs/web-ui.md says: a session that is open stays so until it ends, or an admin changes the role in the page.
        assert sign_on.role(session) == "user"
    finally:
        sign_on.provider.set_roles("dave", "llm-user")


def test_signing_out_makes_the_browser_forget_and_without_redis_a_copy_lives_on(sign_on: SignOn) -> None:
    token = sign_on.session("dave")
    answer = sign_on.ui.request("POST", "/api/v1/auths/signout", token=token)
    assert answer.status == 200
    assert 'token=""' in answer.headers["set-cookie"] or "token=;" in answer.headers["set-cookie"]
    # As docs/web-ui.md says.
    assert sign_on.ui.request("GET", "/api/v1/auths/", token=token).status == 200


def test_a_role_of_the_gateways_own_is_the_same_in_the_chat_and_at_the_api(sign_on: SignOn) -> None:
    """Open WebUI knows admins and users only; roleMap says guest."""
    sign_on.wait_for_keys()
    session, token = sign_on.session("gina"), sign_on.provider.token("gina")
    assert sign_on.role(session) == "user"
    assert sign_on.ui.chat(session, "small").status == sign_on.ask_api(token, "small").status == 200
    refused = sign_on.ui.chat(session, "qwen")
    assert refused.status in (400, 403)
    assert b"gina@example.com may not use the model `qwen`: the role `guest`" in refused.body
    assert sign_on.ask_api(token, "qwen").status == 404


def test_a_token_is_refreshed_with_the_roles_of_now_and_the_old_one_lives_until_it_ends(sign_on: SignOn) -> None:
    sign_on.wait_for_keys()
    tokens = sign_on.provider.sign_in_with_a_tool("dave")
    assert sign_on.ask_api(tokens["access_token"]).status == 200
    sign_on.provider.set_roles("dave", "visitor")
    try:
        renewed = sign_on.provider.refresh(tokens["refresh_token"])
        assert sign_on.ask_api(renewed["access_token"]).status == 403
        assert sign_on.ask_api(tokens["access_token"]).status == 200
    finally:
        sign_on.provider.set_roles("dave", "llm-user")
    again = sign_on.provider.refresh(renewed["refresh_token"])
    assert sign_on.ask_api(again["access_token"]).status == 200


def test_a_token_that_has_ended_is_refused_until_it_is_refreshed(sign_on: SignOn) -> None:
    sign_on.wait_for_keys()
    answer = sign_on.ask_api(sign_on.provider.token("dave", seconds=-120))
    assert (answer.status, answer.error["code"]) == (401, "invalid_token")
    assert "expired" in answer.error["message"]


def test_signing_out_leads_to_the_end_of_the_session_at_the_provider(sign_on: SignOn) -> None:
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        sign_on.pass_through(browser, "dave")
        # The provider knows him, and asks no more.
        assert "Test identity provider" not in browser.get(f"{sign_on.ui.url}/oauth/oidc/login").text
        out = browser.post(f"{sign_on.ui.url}/api/v1/auths/signout").json()
        assert out["redirect_url"].startswith(f"{sign_on.provider.issuer}/session/end?id_token_hint=")
        asked = browser.get(out["redirect_url"])
        form = dict(re.findall(r'name="(\w+)" value="(\w+)"', asked.text))
        browser.post(f"{sign_on.provider.issuer}/session/end/confirm", data={**form, "logout": "yes"})
        assert "Test identity provider" in browser.get(f"{sign_on.ui.url}/oauth/oidc/login").text


def test_a_person_signs_on_chats_and_signs_out_in_a_browser(
    sign_on: SignOn, chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    command = [sys.executable, HERE / "sign_on_browser.py", chromium, sign_on.ui.url, "dave", "0 1 2 3 4", tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"signed out at: {sign_on.provider.issuer}/session/end" in done.stdout


@pytest.mark.parametrize(
    ("user", "role"), [("carol", "admin"), ("dave", "user"), ("mallory", "pending"), ("eve", "refused")]
)
def test_where_id_tokens_say_little_userinfo_tells_who_is_what(thin: SignOn, user: str, role: str) -> None:
    """As of Authelia."""
    token = thin.sign_in(user)
    assert (thin.role(token) if token else "refused") == role


@pytest.fixture(scope="module")
def thin(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignOn]:
    with sign_on_with(program, tmp_path_factory.mktemp("thin"), thin=True, rolesClaim="groups") as made:
        yield made
