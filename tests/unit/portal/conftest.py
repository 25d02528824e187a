"""The portal's site over a socket, with a browser that keeps cookies; the API server behind it is a fake."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
import pytest
from aiohttp import ClientResponse, CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection
from stoker.portal.application import build_site
from stoker.portal.chat import Chat
from stoker.portal.config import PortalConfig
from stoker.portal.directory import Directory
from stoker.portal.oidc import IdentityProvider
from stoker.portal.settings import Settings
from stoker.portal.usage import UsageReader

ADMIN_KEY = "sk-stoker-admin"
BOB_KEY = "sk-stoker-bob"

CONFIG: dict[str, Any] = {
    "url": "http://ai.example.com/v1",
    "roles": [
        {"name": "admin", "models": ["*"]},
        {"name": "user", "models": ["qwen*", "llama"], "limits": {"requestsPerMinute": 60}},
    ],
    "models": [
        {
            "name": "qwen3",
            "cluster": "team-a/qwen3",
            "state": "Ready",
            "reason": "Serving",
            "context": 32768,
            "answer": 8192,
            "tools": True,
            "readyReplicas": 1,
            "replicas": 1,
        },
        {"name": "llama", "state": "Starting", "reason": "Downloading"},
        {"name": "secret-model", "state": "Ready", "reason": "Serving"},
    ],
    "maxKeysPerUser": 3,
}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class FakeApiServer:
    """As much of the API server as the portal may use: one ConfigMap, and ApiKeys; everything else is refused as RBAC would."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.refused: list[str] = []
        self.failing = False
        self.add("gateway-admin", owner="admin of gateway gateway", sha256=sha256(ADMIN_KEY))
        self.add("bob", owner="bob@example.com", role="user", models=["llama"], sha256=sha256(BOB_KEY))
        self.keys["gateway-admin"]["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "stoker"}

    def add(self, name: str, gateway: str = "gateway", **spec: Any) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"name": name, "namespace": "team-a", "uid": f"uid-{name}", "creationTimestamp": now}
        self.keys[name] = {"metadata": metadata, "spec": {"gatewayRef": {"name": gateway}, **spec}}

    def app(self) -> web.Application:
        app = web.Application()
        base = "/apis/stoker.dev/v1alpha1/namespaces/team-a/apikeys"
        app.router.add_get(base, self._list)
        app.router.add_post(base, self._create)
        app.router.add_route("*", base + "/{name}", self._one)
        app.router.add_route("*", "/{rest:.*}", self._refuse)
        return app

    async def _refuse(self, request: web.Request) -> web.Response:
        self.refused.append(f"{request.method} {request.path}")
        return web.json_response({"reason": "Forbidden", "message": "forbidden"}, status=403)

    async def _list(self, _: web.Request) -> web.Response:
        if self.failing:
            return web.json_response({"reason": "InternalError", "message": "etcd is away"}, status=500)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": list(self.keys.values())})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        body["metadata"] |= {"uid": f"uid-{body['metadata']['name']}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.keys[body["metadata"]["name"]] = body
        return web.json_response(body, status=201)

    async def _one(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.keys:
            return web.json_response({"reason": "NotFound", "message": "not found"}, status=404)
        if request.method == "DELETE":
            return web.json_response(self.keys.pop(name))
        if request.method == "PATCH":
            patch = await request.json()
            assert patch["metadata"].pop("uid") == self.keys[name]["metadata"]["uid"]
            for part, values in (("spec", patch["spec"]), ("metadata", patch["metadata"])):
                self.keys[name][part] = merged(self.keys[name][part], values)
        return web.json_response(self.keys[name])


def merged(old: Any, new: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(new, dict):
        return new
    kept = old if isinstance(old, dict) else {}
    changed = {name: merged(kept.get(name), value) for name, value in new.items() if value is not None}
    return {name: value for name, value in {**kept, **changed}.items() if new.get(name, value) is not None}


class Browser:
    """Somebody's browser: cookies, forms with what is hidden in them, no redirects that are not looked at."""

    def __init__(self, client: TestClient[web.Request, web.Application]) -> None:
        self._client = client
        self.text = ""

    async def get(self, path: str, **more: Any) -> ClientResponse:
        answer = await self._client.get(path, allow_redirects=False, **more)
        self.text = unescape(await answer.text())
        return answer

    async def post(
        self, path: str, *, csrf: str | None = None, headers: dict[str, str] | None = None, **fields: Any
    ) -> ClientResponse:
        """As the page that was last seen would send it."""
        token = csrf if csrf is not None else self.csrf
        data = [("csrf", token), *((k, v) for k, vs in fields.items() for v in (vs if isinstance(vs, list) else [vs]))]
        answer = await self._client.post(path, data=data, headers=headers, allow_redirects=False)
        self.text = unescape(await answer.text())
        return answer

    async def sign_in(self, key: str) -> None:
        answer = await self.post("/portal/sign-in", csrf="", key=key)
        assert answer.status == 303, self.text
        await self.get("/keys")

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        return found.group(1) if found else ""

    @property
    def new_key(self) -> str:
        found = re.search(r'class="key">(sk-stoker-[^<]+)<', self.text)
        assert found, self.text
        return found.group(1)

    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self._client.session.cookie_jar}

    def claims(self) -> dict[str, Any]:
        payload = self.cookies()["stoker"].split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(payload + "==")))


class FakeUsage:
    """The usage process: tells what it was asked, and the rows it was given."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.status = 200

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def add(self, by: str, value: str, prompt: int, completion: int, **more: Any) -> None:
        row = {by: value, "requests": 1, "failed_requests": 0, "prompt_tokens": prompt, "completion_tokens": completion, "estimated_requests": 0}  # fmt: skip
        self.rows.setdefault(by, []).append({**row, **more})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer read-token"
        asked = dict(request.url.params)
        self.asked.append(asked)
        return httpx.Response(self.status, json={"data": self.rows.get(asked["by"], [])})


class FakeChat:
    """Open WebUI, as far as it tells whose session one is."""

    def __init__(self) -> None:
        self.people: dict[str, tuple[str, str]] = {}
        self.groups: dict[str, list[str]] = {}
        self.asked = 0

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        found = self.people.get(token)
        if str(request.url) == "http://gateway-webui.team-a.svc/api/v1/users/groups?include_inherited=true":
            assert found
            assert found[1] in ("admin", "user"), "newcomers are told nothing"
            return httpx.Response(200, json=[{"id": "1", "name": name} for name in self.groups.get(token, ())])
        assert str(request.url) == "http://gateway-webui.team-a.svc/api/v1/auths/"
        self.asked += 1
        if found is None:
            return httpx.Response(401, json={"detail": "401 Unauthorized"})
        return httpx.Response(200, json={"email": found[0], "role": found[1]})


@pytest.fixture
def usage() -> FakeUsage:
    return FakeUsage()


@pytest.fixture
def chat() -> FakeChat:
    return FakeChat()


@pytest.fixture
def settings() -> Settings:
    return Settings("team-a", "gateway", session_secret="s" * 64, oidc_client_secret="client-secret")


@pytest.fixture
async def api() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
async def directory(api: FakeApiServer, settings: Settings) -> AsyncIterator[Directory]:
    async with TestServer(api.app()) as server, KubeClient(Connection(str(server.make_url("")).rstrip("/"))) as client:
        found = Directory(client, settings)
        found.config = PortalConfig.model_validate(CONFIG)
        yield found
    assert api.refused == [], "the portal asked for what its Role does not give"


@pytest.fixture
def provider(settings: Settings) -> IdentityProvider:
    return IdentityProvider(settings.oidc_client_secret)


@pytest.fixture
def site(
    directory: Directory, settings: Settings, provider: IdentityProvider, usage: FakeUsage, chat: FakeChat
) -> web.Application:
    reader = UsageReader("http://gateway-usage.team-a.svc:8090", "read-token", usage.transport())
    return build_site(settings, directory, provider, reader, Chat(chat.transport()))


@pytest.fixture
async def browsers(site: web.Application) -> AsyncIterator[Any]:
    opened: list[TestClient[web.Request, web.Application]] = []
    async with TestServer(site) as server:

        def open_one() -> Browser:
            client = TestClient(server, cookie_jar=CookieJar(unsafe=True))
            opened.append(client)
            return Browser(client)

        yield open_one
        for client in opened:
            await client.session.close()


@pytest.fixture
async def browser(browsers: Any) -> Browser:
    found: Browser = browsers()
    return found
