"""A fake identity provider: a key set over HTTP, and tokens signed with its keys."""

from __future__ import annotations

import json
import ssl
import time
from typing import Any

from aiohttp import encode_basic_auth, web
from gateway.loops import ThreadedServer
from joserfc import jws
from joserfc.jwk import RSAKey


class FakeIssuer(ThreadedServer):
    """Shows `keys`; counts how often it was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.context = context
        self.keys: dict[str, RSAKey] = {}
        self.asked = 0
        self.opaque: dict[str, dict[str, Any]] = {}
        """Tokens that say nothing by themselves, and what is said of them."""
        self.asked_about: list[str] = []
        self.start()
        self.name = f"https://localhost:{self.port}" if context else f"http://127.0.0.1:{self.port}"

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/introspect", self._introspect)
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        return app

    async def _jwks(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys.values()]})

    async def _introspect(self, request: web.Request) -> web.Response:
        self.asked_about.append(str((await request.post())["token"]))
        if request.headers["authorization"] != encode_basic_auth("gateway", "client secret"):
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response(self.opaque.get(self.asked_about[-1], {"active": False}))

    async def _discovery(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.name, "jwks_uri": f"{self.name}/jwks"})

    def add_key(self, kid: str) -> None:
        self.keys[kid] = RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})

    def route(self, **more: Any) -> dict[str, Any]:
        """How the operator tells a gateway of it."""
        roles = [{"value": "staff", "role": "reader"}, {"value": "boss", "role": "admin"}]
        return {"issuer": self.name, "audiences": ["gateway"], "jwksUri": f"{self.name}/jwks", "roleMap": roles, **more}

    def token(self, user: str = "alice", kid: str = "first", key: Any = None, alg: str = "RS256", **more: Any) -> str:
        claims = {
            "iss": self.name,
            "aud": "gateway",
            "sub": user,
            "groups": ["staff"],
            "exp": time.time() + 300,
            **more,
        }
        signing = key or self.keys[kid]
        return jws.serialize_compact({"alg": alg, "kid": kid}, json.dumps(claims), signing, algorithms=[alg])
