"""A real OpenID provider, a gateway and a web chat that trust it, and the way through them that a browser takes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets as random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from e2e.conformance import clients
from gateway.conftest import World
from gateway.fake_engine import FakeEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Answer, Config, GatewayPod, until
from ports import free_port
from webui.open_webui import SECRETS, SERVICE_KEY, USER_SECRET, OpenWebUI

from stoker.api import ApiGateway
from stoker.desired.gateway_tokens import build_issuers, build_role_map

HERE = Path(__file__).parent
ROLES = [{"name": "admin", "models": ["*"]}, {"name": "user", "models": ["*"]}, {"name": "guest", "models": ["small"]}]
SCOPES = "openid email profile offline_access"


@dataclass
class IdentityProvider:
    port: int

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_roles(self, user: str, *roles: str) -> None:
        httpx.post(f"{self.issuer}/test/roles", params={"user": user, "roles": ",".join(roles)}).raise_for_status()

    def token(self, user: str, audience: str = "chat", seconds: int = 600) -> str:
        asked = {"user": user, "aud": audience, "seconds": str(seconds)}
        return httpx.get(f"{self.issuer}/test/token", params=asked).text

    def sign_in_with_a_tool(self, user: str) -> dict[str, Any]:
        """Tokens as a program on somebody's machine gets them: in the browser, with PKCE and no secret."""
        verifier = random.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {"client_id": "tool", "response_type": "code", "redirect_uri": "http://127.0.0.1/done", "scope": SCOPES, "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
        with httpx.Client(timeout=30) as browser:
            place = f"{self.issuer}/auth?{httpx.QueryParams(asked)}"
            while not place.startswith("http://127.0.0.1/done"):
                answer = browser.get(place)
                if answer.is_success:
                    answer = browser.post(place, data={"login": user, "password": f"{user}-password"})
                place = urljoin(place, answer.headers["location"])
        (code,) = parse_qs(urlsplit(place).query)["code"]
        return self._tokens(grant_type="authorization_code", code=code, redirect_uri="http://127.0.0.1/done", code_verifier=verifier)  # fmt: skip

    def refresh(self, token: str) -> dict[str, Any]:
        return self._tokens(grant_type="refresh_token", refresh_token=token)

    def _tokens(self, **form: str) -> dict[str, Any]:
        answer = httpx.post(f"{self.issuer}/token", data={"client_id": "tool", **form})
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass
class SignOn:
    """All four."""

    provider: IdentityProvider
    world: World
    ui: OpenWebUI

    def sign_in(self, user: str, password: str | None = None) -> str:
        """The session after `Continue with …`, as a browser gets it; empty where nobody is signed in."""
        with httpx.Client(follow_redirects=True, timeout=60) as browser:
            self.pass_through(browser, user, password)
            return browser.cookies.get("token") or ""

    def pass_through(self, browser: httpx.Client, user: str, password: str | None = None) -> None:
        form = browser.get(f"{self.ui.url}/oauth/oidc/login")
        action = re.search(r'action="([^"]+)"', form.text)
        assert action, (form.url, form.text[-1000:])
        data = {"login": user, "password": password or f"{user}-password"}
        browser.post(f"{self.provider.issuer}{action[1]}", data=data)

    def session(self, user: str) -> str:
        token = self.sign_in(user)
        assert token, user
        return token

    def role(self, token: str) -> str:
        role: str = self.ui.request("GET", "/api/v1/auths/", token=token).json["role"]
        return role

    def ask_api(self, token: str, model: str = "qwen") -> Answer:
        return self.world.pod.request("POST", "/v1/chat/completions", {"model": model, "messages": []}, token)

    def wait_for_keys(self) -> None:
        """The issuer's, at the gateway."""
        until(lambda: self.ask_api(self.provider.token("carol")).status == 200, "the issuer's keys", within=20)


@contextlib.contextmanager
def sign_on_with(program: Path, folder: Path, *, thin: bool = False, **more: Any) -> Iterator[SignOn]:
    """Everything, with auth.oidc as given; thin: the provider's ID tokens only prove who signed in."""
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
        "roleMap": [
            {"value": "llm-admin", "role": "admin"},
            {"value": "llm-user", "role": "user"},
            {"value": "llm-guest", "role": "guest"},
        ],
        **more,
    }
    spec = {"auth": {"oidc": oidc}, "roles": [{"name": "guest", "models": ["small"]}]}
    secrets = {**SECRETS, ("chat-client", "clientSecret"): "the-secret-of-the-web-chat"}
    kubernetes, engine = FakeKubernetes(), FakeEngine("one")
    for name in ("gw", "ui"):
        (folder / name).mkdir()
    pod = GatewayPod(folder / "gw", kubernetes)
    ui = OpenWebUI(program, folder / "ui", pod.port, port=ui_port, secrets=secrets, spec=spec)
    log = (folder / "idp.log").open("wb")
    process = subprocess.Popen(
        [node, script, str(provider.port), f"{ui.url}/oauth/oidc/callback"],
        env={**os.environ, "THIN": str(int(thin))},
        stdout=log,
        stderr=log,
    )
    try:
        until(lambda: is_up(provider), "the identity provider", within=20)
        gateway = ApiGateway.model_validate({"metadata": {"name": "gateway"}, "spec": spec})
        tokens = {"issuer": "open-webui", "secret": USER_SECRET, "required": True}
        config = Config().model("qwen").model("small").key("alice", "sk-alice")
        config.key("gateway-webui", SERVICE_KEY, userTokens=tokens)
        config.more = {"jwt": build_issuers(gateway, {}), "roles": ROLES, "roleMap": build_role_map(gateway)}
        for service in ("qwen", "small"):
            kubernetes.put_endpoints(NAMESPACE, service, [engine.port])
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
