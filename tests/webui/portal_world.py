"""The portal behind a real gateway, with real usage; the API server, which here does the operator's part for keys, too, and the engine are fakes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from e2e.conformance import clients
from gateway.counting_engine import CountingEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.loops import ThreadedServer
from gateway.pod import NAME, NAMESPACE, GatewayPod, until
from gateway.usage_pod import TOKEN, UsagePod, put_pods

from stoker.api import ApiGateway, ApiKey, ModelDeployment
from stoker.api.api_key import KeyHash
from stoker.api.resolved import OperatorSettings, PublishedModel, ResolvedApiGateway
from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection
from stoker.cluster.load import GatewayAnswer, GatewayReading
from stoker.desired.api_key import hash_key
from stoker.desired.gateway_config import build_secrets
from stoker.desired.portal import CONFIG_FIELD, build_portal
from stoker.portal import main as portal_main
from stoker.portal.load import HOUR_SECONDS, STEP_SECONDS
from stoker.portal.rendering import DIRECTORY, LOAD
from stoker.portal.settings import Settings
from stoker.portal_token import portal_token
from stoker.usage.records import Group, Sums
from stoker.usage.store import START, Store

HERE = Path(__file__).parent
ADMIN_KEY = "sk-stoker-the-admin-key-of-the-gateway"
CLIENT_SECRET = "the-secret-of-the-web-chat"
DAYS = 30
KEYS_PATH = f"/apis/stoker.dev/v1alpha1/namespaces/{NAMESPACE}/apikeys"


def model(name: str, status: Mapping[str, Any], engine_type: str = "VLLM", **spec: Any) -> PublishedModel:
    given = {"engineRef": {"name": "engine"}, "source": {"uri": f"hf://example/{name}"}, **spec}
    metadata = {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    deployment = ModelDeployment.model_validate({"metadata": metadata, "spec": given, "status": status})
    return PublishedModel(deployment, stopped=bool(spec.get("suspend")), engine_type=engine_type)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


SERVING = {"replicas": 2, "readyReplicas": 2, "conditions": [condition("Ready", "True", "Serving")]}
MODELS = (
    model(
        "qwen3-30b",
        {**SERVING, "model": {"name": "Qwen3 30B A3B", "parameters": 30_000_000_000}, "fit": {"contextLength": 131072}},
        toolCallParser="hermes",
        aliases=["gpt-4o"],
    ),
    model("qwen3-coder", {**SERVING, "replicas": 1, "readyReplicas": 1, "fit": {"contextLength": 65536}}),
    model("bge-m3", {**SERVING, "replicas": 1, "readyReplicas": 1}, task="Embedding", contextLength=8192),
    model(
        "llama-70b",
        {"desiredReplicas": 0, "conditions": [condition("Ready", "True", "Sleeping")], "fit": {"contextLength": 32768}},
        autoscaling={"minReplicas": 0, "maxReplicas": 2},
    ),
    model("mistral-small", {"replicas": 1, "conditions": [condition("Ready", "False", "Downloading")]}),
    model(
        "gemma-27b",
        {
            "conditions": [
                condition("Ready", "False", "GatedRepository"),
                condition(
                    "Stalled",
                    "True",
                    "GatedRepository",
                    "hf://example/gemma-27b asks for a licence: accept it on its page, and name a token in source.secretRef.",
                ),
            ]
        },
    ),
)
ROUTE = {
    "name": "assistant",
    "models": [{"model": "qwen3-30b", "weight": 9}, {"model": "llama-70b"}],
    "fallbacks": [{"model": "qwen3-coder"}, {"external": {"url": "https://api.example.com/v1", "model": "big-model"}}],
}


class Cluster(FakeKubernetes):
    """ApiKeys that can be made, changed and deleted; gateway and portal are told of them at once, by the operator's own functions."""

    def __init__(self, spec: Mapping[str, Any], chat_address: str | None = None) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.chat_address = chat_address
        self.models = MODELS
        metadata = {"name": NAME, "namespace": NAMESPACE, "uid": "gateway"}
        self.gateway = ApiGateway.model_validate({"metadata": metadata, "spec": spec})
        super().__init__()
        self.add_key("gateway-admin", ADMIN_KEY, owner=f"admin of gateway {NAME}", role="admin")
        self.keys["gateway-admin"]["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "stoker"}

    def application(self) -> web.Application:
        app = super().application()
        app.router.add_get(KEYS_PATH, self._list_keys)
        app.router.add_post(KEYS_PATH, self._create_key)
        app.router.add_route("*", KEYS_PATH + "/{name}", self._one_key)
        return app

    def add_key(self, name: str, secret: str, **spec: Any) -> None:
        item = {"metadata": {"name": name}, "spec": {"gatewayRef": {"name": NAME}, "sha256": hash_key(secret), **spec}}
        self.call(self._take(item))

    def tell(self) -> None:
        """What the operator would write, now."""
        self.call(self._reconcile())

    async def _take(self, item: dict[str, Any]) -> None:
        item["metadata"] |= {"namespace": NAMESPACE, "uid": item["metadata"]["name"]}
        item["metadata"].setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.keys[item["metadata"]["name"]] = item
        await self._reconcile()

    async def _reconcile(self) -> None:
        now, keys = datetime.now(UTC), []
        for item in self.keys.values():
            item.setdefault("status", {})["conditions"] = [condition("Ready", "True", "Active")]
            key = ApiKey.model_validate(item)
            hashes = [KeyHash(sha256=key.spec.sha256, created_at=now)] if key.spec.sha256 else key.status.keys
            status = key.status.model_copy(update={"keys": hashes})
            keys.append(key.model_copy(update={"status": status}))
        resolved = ResolvedApiGateway(self.gateway, self.models, tuple(keys), TOKEN)
        for secret in build_secrets(resolved):
            await self._put("secrets", secret)
        for child in build_portal(resolved, OperatorSettings(stoker_image="stoker")):
            if child["kind"] == "ConfigMap":
                told = json.loads(child["data"][CONFIG_FIELD])
                if self.chat_address is not None:
                    told["chatAddress"] = told["webUiUrl"] = self.chat_address
                child["data"][CONFIG_FIELD] = json.dumps(told)
                await self._put("configmaps", child)

    async def _list_keys(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": list(self.keys.values())})

    async def _create_key(self, request: web.Request) -> web.Response:
        item = await request.json()
        await self._take(item)
        return web.json_response(item, status=201)

    async def _one_key(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.keys:
            return web.json_response({"reason": "NotFound", "message": "not found"}, status=404)
        item = self.keys[name]
        if request.method == "DELETE":
            del self.keys[name]
            await self._reconcile()
        elif request.method == "PATCH":
            patch = await request.json()
            item["metadata"].setdefault("annotations", {}).update(patch["metadata"].get("annotations", {}))
            item["spec"] = {k: v for k, v in {**item["spec"], **patch["spec"]}.items() if v is not None}
            await self._reconcile()
        return web.json_response(item)


class PortalServer(ThreadedServer):
    """`stoker portal`, in a loop of its own: the test may add what it remembers of the last hour."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        super().__init__()
        self.site = self.call(self._build(settings, Connection(f"http://127.0.0.1:{cluster.port}")))
        self.start()

    async def _build(self, settings: Settings, connection: Connection) -> web.Application:
        return portal_main.build(settings, KubeClient(connection))

    def application(self) -> web.Application:
        return self.site

    def remember(self) -> None:
        """An hour as it might have been: two waves of work, and a second replica for the larger one."""

        async def note() -> None:
            history, now = self.site[LOAD], time.time()
            history._moments.clear()
            shown = self.site[DIRECTORY].models()
            for step in range(HOUR_SECONDS // STEP_SECONDS):
                x = step / (HOUR_SECONDS / STEP_SECONDS)
                wave = max(0.0, math.sin(x * 9.5)) * 14 + max(0.0, math.sin(x * 61)) * 3
                busy = {"qwen3-30b": wave, "qwen3-coder": wave / 4 + 1, "bge-m3": max(0.0, math.sin(x * 24)) * 6}
                readings = {
                    f"{NAMESPACE}/{name}": GatewayReading(max(0, int(load) - 12), min(12, int(load)), 0, 0, {})
                    for name, load in busy.items()
                }
                noted = [
                    entry.model_copy(update={"ready_replicas": 1}) if entry.name == "qwen3-30b" and x < 0.4 else entry
                    for entry in shown
                ]
                at = now - HOUR_SECONDS + step * STEP_SECONDS + 5
                history.note(noted, [GatewayAnswer(readings)], at)

        self.call(note())


class PortalWorld:
    """All of it, but who says who is who."""

    def __init__(self, folder: Path, spec: Mapping[str, Any] | None = None, chat_address: str | None = None) -> None:
        given = {"portal": {}, "routes": [ROUTE], "roles": [{"name": "user", "models": ["assistant", "qwen*", "bge-m3", "llama*", "mistral*", "gemma*"], "limits": {"requestsPerMinute": 60, "tokensPerMinute": 200000}}], **(spec or {})}  # fmt: skip
        self.cluster, self.engine = Cluster(given, chat_address), CountingEngine()
        self.gateway_pod = GatewayPod(folder, self.cluster)
        self.usage = UsagePod(folder, self.cluster)
        self.provider: IdentityProvider
        """Where there is one; it is the test's to start and stop."""
        self._folder = folder
        fill_usage(folder / "data")
        settings = Settings(
            NAMESPACE,
            NAME,
            session_secret="s" * 64,
            oidc_client_secret=CLIENT_SECRET,
            read_token=portal_token(TOKEN),
            usage_url=self.usage.url,
            gateway_pods=f"127.0.0.1:{self.gateway_pod.http_port}",
        )
        self.server = PortalServer(settings, self.cluster)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_pod.port}"

    def start(self) -> None:
        put_pods(self.cluster, self.gateway_pod)
        for name in ("qwen3-30b", "qwen3-coder"):
            self.cluster.put_endpoints(NAMESPACE, name, [self.engine.port])
        self.cluster.put_endpoints(NAMESPACE, "gateway-portal", [self.server.port])
        self.cluster.tell()
        self.usage.start()
        self.gateway_pod.start()
        until(lambda: self.gateway_pod.request("GET", "/readyz", key=None).status in (401, 404), "Envoy", 60)
        until(lambda: self.gateway_pod.request("GET", "/", key=None).status == 200, "the portal", 60)
        until(lambda: self.usage.get("/usage") is not None, "usage", 60)

    def chat(self, key: str, model: str = "qwen3-30b") -> int:
        return self.gateway_pod.chat(model, key, metadata={"prompt": 321, "completion": 3}).status

    def stop(self) -> None:
        self.gateway_pod.stop()
        self.usage.stop()
        self.server.close()
        self.cluster.close()
        self.engine.close()


def fill_usage(folder: Path) -> None:
    """A month of three people's work, as the usage process keeps it."""
    folder.mkdir(exist_ok=True)
    store, today = Store.in_folder(f"{NAMESPACE}/{NAME}", folder), datetime.now(UTC).date()
    batch: dict[Group, Sums] = {}
    for back in range(DAYS):
        day = (today - timedelta(days=back)).isoformat()
        weekend = (today - timedelta(days=back)).weekday() > 4
        much = (4 + 3 * math.sin(back * 1.7) + 2 * math.sin(back * 0.9)) * (0.1 if weekend else 1)
        for user, share in (("carol@example.com", 1.0), ("dave@example.com", 0.6), ("erin@example.com", 0.2)):
            for key, used, part in (("laptop-1f", "qwen3-30b", 0.7), ("gateway-webui", "qwen3-30b", 0.2), ("ci-2c", "qwen3-coder", 0.4)):  # fmt: skip
                requests = max(0, int(40 * much * share * part))
                if requests:
                    sums = Sums(requests, requests // 90, requests * 1900, requests * 310, 0, 0, requests // 60)
                    batch[Group(day, user, key, user, used)] = sums
    assert store.add("seeded", START, (1, 1), batch, {}, today)
    store.close()


class IdentityProvider:
    """npm's oidc-provider on loopback, whose only client comes back to one address."""

    def __init__(self, modules: Path, folder: Path, redirect_uri: str, port: int) -> None:
        self.port, self.issuer = port, f"http://127.0.0.1:{port}"
        # Modules are looked for beside the script.
        self._script = shutil.copy(HERE / "identity_provider.mjs", modules / f"provider-{port}.mjs")
        node = shutil.which("node")
        assert node
        with (folder / "identity-provider.log").open("wb") as log:
            self._process = subprocess.Popen([node, self._script, str(port), redirect_uri], stdout=log, stderr=log)
        until(self._is_up, "the identity provider", within=60)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.issuer}/.well-known/openid-configuration").is_success
        except httpx.TransportError:
            return False

    def set_roles(self, user: str, *roles: str) -> None:
        httpx.post(f"{self.issuer}/test/roles", params={"user": user, "roles": ",".join(roles)}).raise_for_status()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        Path(self._script).unlink()


def install_modules() -> Path:
    """oidc-provider and axe-core."""
    npm = shutil.which("npm")
    assert npm, "the identity provider and axe need Node 20 or newer with npm"

    def make(folder: Path) -> None:
        shutil.copy(HERE / "package.json", folder)
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        clients.run([npm, "install", "--ignore-scripts", *quiet, "--prefix", folder])

    return clients.made("identity-provider", [HERE / "package.json"], make)


def oidc_of(port: int) -> dict[str, Any]:
    """As an ApiGateway says it."""
    return {
        "issuer": f"http://127.0.0.1:{port}",
        "clientId": "chat",
        "clientSecretRef": {"name": "chat-client"},
        "rolesClaim": "realm_access.roles",
        "roleMap": [{"value": "llm-admin", "role": "admin"}, {"value": "llm-user", "role": "user"}],
    }
