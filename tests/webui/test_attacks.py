"""Ways into the web chat, or past it, that must stay shut: at a real Open WebUI and a real gateway."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from gateway.conftest import World
from gateway.pod import Answer, until
from webui.open_webui import EMAIL, PASSWORD, SECRETS, SERVICE_KEY, USER_SECRET, OpenWebUI

EVIL = "https://evil.example.com"


@pytest.fixture(scope="session")
def dave(ui: OpenWebUI) -> str:
    return ui.add("dave@example.com", "user")


@pytest.fixture(scope="session")
def mallory(ui: OpenWebUI) -> str:
    """Whom the admin has not let in."""
    return ui.add("mallory@example.com", "pending")


def signed(claims: dict[str, Any], secret: str) -> str:
    """By hand: the library refuses secrets as bad as some of these."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(secret.encode(), text, "sha256")
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def session(user: str, secret: str) -> str:
    now = int(time.time())
    claims = {"id": user, "typ": "session", "auth_method": "password", "iat": now, "exp": now + 3600, "jti": "1"}
    return signed(claims, secret)


def user_token(secret: str = USER_SECRET, **more: Any) -> str:
    now = time.time()
    claims = {
        "sub": "1",
        "email": EMAIL,
        "name": "A",
        "role": "admin",
        "iss": "open-webui",
        "iat": now,
        "exp": now + 300,
    }
    return signed({**claims, **more}, secret)


def admin_id(ui: OpenWebUI) -> str:
    found: str = ui.request("GET", "/api/v1/auths/", token=ui.sign_in()).json["id"]
    return found


def is_refused(answer: Answer) -> bool:
    return answer.status in (400, 401, 403, 404, 405)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/models"),
        ("GET", "/openai/models"),
        ("POST", "/api/chat/completions"),
        ("POST", "/openai/chat/completions"),
        ("GET", "/api/v1/users/"),
        ("GET", "/api/v1/chats/"),
        ("GET", "/api/v1/files/"),
        ("GET", "/api/v1/functions/"),
        ("GET", "/api/v1/configs/export"),
        ("GET", "/openai/config"),
        ("GET", "/api/v1/auths/admin/config"),
        ("POST", "/api/v1/auths/add"),
    ],
)
def test_nobody_calls_the_api_without_a_session(ui: OpenWebUI, world: World, method: str, target: str) -> None:
    before = world.seen
    body = {"model": "qwen", "messages": []} if method == "POST" else None
    assert is_refused(ui.request(method, target, body))
    assert world.seen == before


def test_nobody_signs_up(ui: OpenWebUI) -> None:
    entry = {"name": "m", "email": "new@example.com", "password": "a-long-password", "profile_image_url": "/user.png"}
    assert ui.request("POST", "/api/v1/auths/signup", entry).status == 403


@pytest.mark.parametrize("password", ["admin", "", "' OR 1=1 --", PASSWORD.upper()])
def test_a_wrong_password_opens_nothing(ui: OpenWebUI, password: str) -> None:
    answer = ui.request("POST", "/api/v1/auths/signin", {"email": EMAIL, "password": password})
    assert is_refused(answer)
    assert "token" not in answer.json


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Email": EMAIL, "X-Forwarded-User": EMAIL},
        {"Remote-User": EMAIL, "Remote-Email": EMAIL, "Remote-Groups": "admins"},
        {"X-OpenWebUI-User-Email": EMAIL, "X-OpenWebUI-User-Role": "admin"},
    ],
)
def test_forged_headers_sign_nobody_in(ui: OpenWebUI, headers: dict[str, str]) -> None:
    assert is_refused(ui.request("GET", "/api/v1/users/", headers=headers))
    assert is_refused(ui.request("POST", "/api/v1/auths/signin", {"email": "", "password": ""}, headers=headers))


@pytest.mark.parametrize(
    "secret", ["t0p-s3cr3t", USER_SECRET, "", PASSWORD], ids=["default", "of users", "none", "password"]
)
def test_a_session_signed_with_another_secret_is_none(ui: OpenWebUI, secret: str) -> None:
    forged = session(admin_id(ui), secret)
    assert is_refused(ui.request("GET", "/api/v1/users/", token=forged))
    head, body, _ = forged.split(".")
    assert is_refused(ui.request("GET", "/api/v1/users/", token=f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}."))
    assert head


def test_a_user_does_not_make_himself_admin(ui: OpenWebUI, dave: str) -> None:
    me = ui.request("GET", "/api/v1/auths/", token=dave).json
    entry = {"name": "dave", "email": me["email"], "role": "admin", "profile_image_url": "/user.png"}
    assert is_refused(ui.request("POST", f"/api/v1/users/{me['id']}/update", entry, dave))
    ui.request("POST", "/api/v1/auths/update/profile", entry, dave)
    assert ui.request("GET", "/api/v1/auths/", token=dave).json["role"] == "user"


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/api/v1/configs/export", None),
        ("GET", "/openai/config", None),
        ("POST", "/openai/config/update", {"ENABLE_OPENAI_API": True, "OPENAI_API_BASE_URLS": [EVIL], "OPENAI_API_KEYS": ["x"], "OPENAI_API_CONFIGS": {}}),
        ("POST", "/api/v1/functions/create", {"id": "f", "name": "f", "content": "import os", "meta": {"description": ""}}),
        ("POST", "/api/v1/auths/add", {"name": "x", "email": "x@example.com", "password": "p", "role": "admin"}),
        ("POST", "/api/v1/auths/api_key", {}),
        ("GET", "/api/v1/utils/db/download", None),
    ],
)  # fmt: skip
def test_a_user_does_not_administer(ui: OpenWebUI, dave: str, method: str, target: str, body: Any) -> None:
    assert is_refused(ui.request(method, target, body, dave))


def test_a_user_does_not_read_the_chats_of_others(ui: OpenWebUI, dave: str) -> None:
    made = ui.request("POST", "/api/v1/chats/new", {"chat": {"title": "secret", "messages": []}}, ui.sign_in())
    assert made.status == 200, made.body
    for method in ("GET", "DELETE"):
        answer = ui.request(method, f"/api/v1/chats/{made.json['id']}", token=dave)
        assert is_refused(answer)
        assert b"secret" not in answer.body


def test_whom_the_admin_has_not_let_in_chats_with_nobody(ui: OpenWebUI, world: World, mallory: str) -> None:
    before = world.seen
    assert is_refused(ui.chat(mallory))
    assert is_refused(ui.request("GET", "/api/models", token=mallory))
    assert world.seen == before


def test_pages_of_other_origins_may_not_read(ui: OpenWebUI) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": EVIL, "Access-Control-Request-Method": "GET"}
        answer = ui.request(method, "/api/config", headers=headers)
        assert answer.headers.get("access-control-allow-origin") != EVIL
        assert answer.headers.get("access-control-allow-origin") != "*"


def test_a_websocket_of_another_origin_is_refused(ui: OpenWebUI) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    target = "/ws/socket.io/?EIO=4&transport=websocket"
    assert is_refused(ui.request("GET", target, headers={**upgrade, "Origin": EVIL}))


def test_the_session_cookie_goes_to_this_site_only_and_no_script_reads_it(ui: OpenWebUI) -> None:
    answer = ui.request("POST", "/api/v1/auths/signin", {"email": EMAIL, "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_session_that_was_there_before_is_not_taken_over_at_sign_in(ui: OpenWebUI) -> None:
    headers = {"Cookie": "token=fixed-by-the-attacker; owui-session=fixed"}
    answer = ui.request("POST", "/api/v1/auths/signin", {"email": EMAIL, "password": PASSWORD}, headers=headers)
    assert answer.json["token"] != "fixed-by-the-attacker"
    assert is_refused(ui.request("GET", "/api/v1/users/", token="fixed-by-the-attacker"))


def test_what_a_person_writes_to_the_gateway_in_headers_goes_no_further(ui: OpenWebUI, world: World, dave: str) -> None:
    world.engines[0].seen.clear()
    forged = {"X-OpenWebUI-User-Email": EMAIL, "X-OpenWebUI-User-Jwt": user_token(), "X-Gw-Cluster": "answer"}
    answer = ui.chat(dave, headers=forged)
    assert answer.status == 200, answer.body
    (seen,) = world.engines[0].seen
    assert not [name for name in seen.headers if name.startswith(("x-openwebui", "x-gw-")) or name == "authorization"]
    lines = until(lambda: [line for line in world.pod.access_log() if line.get("user")], "the log line")
    assert lines[-1]["user"] == "dave@example.com"


@pytest.mark.parametrize(
    "token",
    [
        lambda: "",
        lambda: user_token("another secret of 32 bytes or more"),
        lambda: user_token(SECRETS["gateway-webui-secrets", "secretKey"]),
        lambda: user_token(exp=time.time() - 100),
        lambda: user_token(iss="somebody"),
        lambda: "eyJhbGciOiJub25lIn0." + user_token().split(".")[1] + ".",
    ],
    ids=["no token", "secret", "the sessions' secret", "expired", "issuer", "none"],
)
def test_the_gateway_believes_open_webui_only(world: World, token: Any) -> None:
    before = world.seen
    headers = {"X-OpenWebUI-User-Jwt": token()}
    body = {"model": "qwen", "messages": []}
    answer = world.pod.request("POST", "/v1/chat/completions", body, SERVICE_KEY, headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_user_token")
    assert world.seen == before


def test_the_session_of_the_web_chat_is_no_key_of_the_gateway(ui: OpenWebUI, world: World) -> None:
    assert world.pod.request("GET", "/v1/models", key=ui.sign_in()).status == 401
    assert world.pod.request("GET", "/v1/models", key=user_token()).status == 401
