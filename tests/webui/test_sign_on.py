"""Sign-on by a real OpenID provider: who comes into the web chat, as what, and that the API takes the same issuer's tokens."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from e2e.conformance import clients
from gateway.conftest import World
from gateway.fake_engine import FakeEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Answer, Config, GatewayPod, free_port, until
from webui.open_webui import EMAIL, PASSWORD, SECRETS, SERVICE_KEY, USER_SECRET, OpenWebUI

from stoker.api import ApiGateway
from stoker.desired.gateway_tokens import build_issuers

HERE = Path(__file__).parent


@dataclass
class IdentityProvider:
    port: int

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_roles(self, user: str, *roles: str) -> None:
        httpx.post(f"{self.issuer}/test/roles", params={"user": user, "roles": ",".join(roles)}).raise_for_status()

    def token(self, user: str, audience: str = "chat") -> str:
        return httpx.get(f"{self.issuer}/test/token", params={"user": user, "aud": audience}).text


@dataclass
class SignOn:
    """All four, and the way through them that a browser takes."""

    provider: IdentityProvider
    world: World
    ui: OpenWebUI

    def sign_in(self, user: str, password: str | None = None) -> str:
        """The session after `Continue with …`, as a browser gets it; empty where nobody is signed in."""
        with httpx.Client(follow_redirects=True, timeout=60) as browser:
            form = browser.get(f"{self.ui.url}/oauth/oidc/login")
            action = re.search(r'action="([^"]+)"', form.text)
            assert action, (form.url, form.text[-1000:])
            data = {"login": user, "password": password or f"{user}-password"}
            browser.post(f"{self.provider.issuer}{action[1]}", data=data)
            return browser.cookies.get("token") or ""

    def session(self, user: str) -> str:
        token = self.sign_in(user)
        assert token, user
        return token

    def role(self, token: str) -> str:
        role: str = self.ui.request("GET", "/api/v1/auths/", token=token).json["role"]
        return role

    def ask_api(self, token: str) -> Answer:
        return self.world.pod.request("POST", "/v1/chat/completions", {"model": "qwen", "messages": []}, token)


@pytest.fixture(scope="module")
def sign_on(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignOn]:
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm, "the identity provider needs Node 20 or newer with npm"
    assert node

    def make(folder: Path) -> None:
        shutil.copy(HERE / "package.json", folder)
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        clients.run([npm, "install", "--ignore-scripts", *quiet, "--prefix", folder])

    modules = clients.made("identity-provider", [HERE / "package.json"], make)
    # Modules are looked for beside the script.
    script = shutil.copy(HERE / "identity_provider.mjs", modules / f"provider-{free_port()}.mjs")
    provider, ui_port = IdentityProvider(free_port()), free_port()
    oidc = {
        "issuer": provider.issuer,
        "clientId": "chat",
        "clientSecretRef": {"name": "chat-client"},
        "rolesClaim": "realm_access.roles",
        "roleMap": [{"value": "llm-admin", "role": "admin"}, {"value": "llm-user", "role": "user"}],
    }
    spec = {"auth": {"oidc": oidc}}
    secrets = {**SECRETS, ("chat-client", "clientSecret"): "the-secret-of-the-web-chat"}
    kubernetes, engine = FakeKubernetes(), FakeEngine("one")
    pod = GatewayPod(tmp_path_factory.mktemp("gw"), kubernetes)
    ui = OpenWebUI(program, tmp_path_factory.mktemp("ui"), pod.port, port=ui_port, secrets=secrets, spec=spec)
    log = (tmp_path_factory.mktemp("idp") / "log").open("wb")
    process = subprocess.Popen(
        [node, script, str(provider.port), f"{ui.url}/oauth/oidc/callback"], stdout=log, stderr=log
    )
    try:
        until(lambda: is_up(provider), "the identity provider", within=20)
        gateway = ApiGateway.model_validate({"metadata": {"name": "gateway"}, "spec": spec})
        config = Config().model("qwen").key("alice", "sk-alice")
        config.key(
            "gateway-webui", SERVICE_KEY, userTokens={"issuer": "open-webui", "secret": USER_SECRET, "required": True}
        )
        config.more = {
            "jwt": build_issuers(gateway, {}),
            "roles": [{"name": name, "models": ["*"]} for name in ("admin", "user")],
        }
        kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port])
        config.apply(kubernetes)
        pod.start()
        ui.start()
        ui.wait_ready()
        yield SignOn(provider, World(kubernetes, [engine], pod), ui)
    finally:
        process.terminate()
        process.wait(10)
        log.close()
        Path(script).unlink()
        ui.stop()
        pod.stop()
        kubernetes.close()
        engine.close()


def is_up(provider: IdentityProvider) -> bool:
    try:
        return httpx.get(f"{provider.issuer}/.well-known/openid-configuration").is_success
    except httpx.TransportError:
        return False


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
    until(
        lambda: sign_on.ask_api(sign_on.provider.token("dave")).status == 200, "the issuer's keys are there", within=20
    )

    def callers() -> set[str]:
        lines = [line for line in sign_on.world.pod.access_log() if line.get("user") == "dave@example.com"]
        return {line["caller"] for line in lines}

    until(lambda: len(callers()) == 2, "the log names him by both ways")


def test_the_api_judges_tokens_of_the_issuer_by_their_roles(sign_on: SignOn) -> None:
    until(
        lambda: sign_on.ask_api(sign_on.provider.token("carol")).status == 200, "the issuer's keys are there", within=20
    )
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
