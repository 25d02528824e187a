"""Ways into the web chat, or past it, that must stay shut: at a real Open WebUI and a real gateway."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway.conftest import World
from gateway.pod import Answer, until
from webui.open_webui import EMAIL, PASSWORD, SECRETS, SERVICE_KEY, USER_SECRET, OpenWebUI

EVIL = "https://evil.example.com"
HERE = Path(__file__).parent


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


def test_a_websocket_without_a_session_hears_nothing_and_moves_nobody(ui: OpenWebUI, dave: str) -> None:
    """Chats come over it: a person's own socket hears his answer, and a stranger's beside it no word, whatever room it asks for."""
    me = ui.request("GET", "/api/v1/auths/", token=dave).json["id"]
    wishes: list[list[Any]] = [
        ["user-join", {"auth": {"token": "forged"}}],
        ["user-join", {"auth": {"token": session(me, "t0p-s3cr3t")}}],
        ["join-channels", {"auth": {"token": "forged"}}],
        ["join-note", {"note_id": "1"}],
        ["ydoc:document:join", {"document_id": "note:1", "user_id": me}],
        ["events:chat", {"chat_id": "local:1", "data": {"type": "chat:completion", "data": {}}}],
    ]
    own, strange = asyncio.run(listen(ui, dave, wishes))
    assert "0 1 2 3 4" in own
    assert strange.startswith("0{"), strange
    for word in ("0 1 2", me, "dave", "note:1"):
        assert word not in strange, strange


async def listen(ui: OpenWebUI, token: str, wishes: list[list[Any]]) -> tuple[str, str]:
    """What a person's own socket and a stranger's hear while he is answered."""
    address = f"{ui.url}/ws/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as http, http.ws_connect(address) as own, http.ws_connect(address) as strange:
        heard = [(await strange.receive()).data]
        await strange.send_str("40")
        heard.append((await strange.receive(timeout=10)).data)
        for wish in wishes:
            await strange.send_str(f"42{json.dumps(wish)}")
        await own.receive()
        await own.send_str(f"40{json.dumps({'token': token})}")
        sid = json.loads((await own.receive(timeout=10)).data[2:])["sid"]
        body = {"model": "qwen", "stream": True, "session_id": sid, "chat_id": "local:1", "id": "m1", "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
        headers = {"Authorization": f"Bearer {token}"}
        async with http.post(f"{ui.url}/api/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        told = ""
        while '"done": true' not in told and '"done":true' not in told:
            told += (await own.receive(timeout=20)).data
        with contextlib.suppress(TimeoutError):
            while True:
                heard.append(str((await strange.receive(timeout=0.5)).data))
        return told, "\n".join(heard)


def test_a_page_of_another_site_does_not_act_for_whom_it_finds_signed_in(
    ui: OpenWebUI, dave: str, chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    """Browsers send our cookie along with no request of other sites; and such a page may not send JSON, which is all that Open WebUI reads."""
    command = [sys.executable, HERE / "foreign_page.py", chromium, ui.url, "dave@example.com", "a-long-password", tmp_path]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"own": 200, "foreign": 401}
    assert ui.request("GET", "/api/v1/auths/", token=dave).json["name"] == "changed by himself"


SCRIPT = "<img src=x onerror=\"window.ran='{0}'\"><script>window.ran='{0}'</script><iframe srcdoc=\"<script>parent.ran='{0}'</script>\"></iframe>"


def test_what_people_and_models_write_runs_in_nobodys_page(
    ui: OpenWebUI, world: World, chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    world.engines[0].says = SCRIPT.format("answer") + " END "
    question = SCRIPT.format("question")
    command = [sys.executable, HERE / "browser.py", chromium, ui.url, EMAIL, PASSWORD, question, "END", tmp_path]
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=180)
    finally:
        world.engines[0].says = ""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ran in the page: None" in done.stdout


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
    before = len(world.pod.access_log())
    forged = {"X-OpenWebUI-User-Email": EMAIL, "X-OpenWebUI-User-Jwt": user_token(), "X-Gw-Cluster": "answer"}
    answer = ui.chat(dave, headers=forged)
    assert answer.status == 200, answer.body
    (seen,) = world.engines[0].seen
    assert not [name for name in seen.headers if name.startswith(("x-openwebui", "x-gw-")) or name == "authorization"]

    def users() -> list[str]:
        return [line["user"] for line in world.pod.access_log()[before:] if line.get("user")]

    until(lambda: "dave@example.com" in users(), "the log line")


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


@pytest.mark.parametrize("key", ["sk-alice", "sk-wrong", ""])
def test_what_was_said_of_a_person_is_worth_nothing_with_another_key(world: World, key: str) -> None:
    """Read on the wire, and sent again: with a key of one's own one is oneself, and with none nobody."""
    headers = {"X-OpenWebUI-User-Jwt": user_token(), "X-OpenWebUI-User-Groups": "lab"}
    answer = world.pod.request("POST", "/v1/chat/completions", {"model": "qwen", "messages": []}, key, headers)
    assert answer.status == (200 if key == "sk-alice" else 401)
    if key == "sk-alice":
        lines = until(lambda: [line for line in world.pod.access_log() if line.get("key") == "alice"], "the log line")
        assert "user" not in lines[-1]


def test_the_service_key_alone_opens_nothing_from_anywhere(world: World) -> None:
    before = world.seen
    headers = {"X-OpenWebUI-User-Email": EMAIL, "X-OpenWebUI-User-Role": "admin", "X-OpenWebUI-User-Groups": "lab"}
    for method, target in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/usage"), ("POST", "/v1/embeddings")):  # fmt: skip
        body = {"model": "qwen", "messages": []} if method == "POST" else None
        assert world.pod.request(method, target, body, SERVICE_KEY, headers).status == 401
    assert world.seen == before


def test_the_session_of_the_web_chat_is_no_key_of_the_gateway(ui: OpenWebUI, world: World) -> None:
    assert world.pod.request("GET", "/v1/models", key=ui.sign_in()).status == 401
    assert world.pod.request("GET", "/v1/models", key=user_token()).status == 401
