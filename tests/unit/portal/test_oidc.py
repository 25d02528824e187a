"""Sign-in with an identity provider; the provider is a fake, its tokens are signed for real."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from gateway.certificates import make_certificate, server_context
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from unit.portal.conftest import CONFIG, Browser

from stoker.portal.config import PortalConfig, PortalOidc
from stoker.portal.directory import Directory
from stoker.portal.oidc import IdentityProvider, SignInRefused, judge

ISSUER = "https://login.example.com/realms/ai"
OIDC: dict[str, Any] = {
    "issuer": ISSUER,
    "clientId": "stoker",
    "rolesClaim": "realm_access.roles",
    "roleMap": {"ai-admins": "admin", "ai-users": "user"},
}


class FakeIdentityProvider:
    """Answers as the specification says; what it is told to lie about, it lies about."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.claims: dict[str, Any] = {"realm_access": {"roles": ["ai-users"]}, "email": "alice@example.com"}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "one"}
        self.signing_key: Any = None
        self.hmac_secret = b""
        self.issuer = ISSUER
        self.token_request: dict[str, list[str]] = {}
        self.nonce = ""
        self.challenge = ""
        self.more: dict[str, str] = {}
        """Of the discovery document."""

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/.well-known/openid-configuration"):
            base = ISSUER + "/protocol"
            document = {"issuer": self.issuer, "authorization_endpoint": base + "/auth", "token_endpoint": base + "/token", "jwks_uri": base + "/certs", **self.more}  # fmt: skip
            return httpx.Response(200, json=document)
        if path.endswith("/certs"):
            return httpx.Response(200, json=KeySet([self.key]).as_dict(private=False))
        if path.endswith("/token"):
            self.token_request = parse_qs(request.content.decode())
            (verifier,) = self.token_request["code_verifier"]
            digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
            if self.token_request["code"] != ["good"] or digest != self.challenge:
                return httpx.Response(400, json={"error": "invalid_grant", "error_description": "the code is not good"})
            return httpx.Response(200, json={"access_token": "a", "token_type": "Bearer", "id_token": self._id_token()})
        return httpx.Response(404)

    def visit(self, url: str) -> str:
        """What the browser carries there; the state, which it carries back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["code_challenge_method"] == "S256"
        assert query["response_type"] == "code"
        self.nonce, self.challenge = query["nonce"], query["code_challenge"]
        return query["state"]

    def _id_token(self) -> str:
        claims = {
            "iss": ISSUER,
            "aud": "stoker",
            "sub": "4711",
            "exp": int(time.time()) + 60,
            "nonce": self.nonce,
            **self.claims,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        if self.hmac_secret:
            signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (self.header, given))  # fmt: skip
            signature = hmac.new(self.hmac_secret, signed.encode(), hashlib.sha256).digest()
            return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        if self.header["alg"] == "none":
            parts = [json.dumps(self.header), json.dumps(given), ""]
            return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
        return jwt.encode(self.header, given, self.signing_key or self.key, algorithms=[self.header["alg"]])


@pytest.fixture
def idp() -> FakeIdentityProvider:
    return FakeIdentityProvider()


@pytest.fixture
def provider(idp: FakeIdentityProvider) -> IdentityProvider:
    return IdentityProvider("client-secret", idp.transport())


@pytest.fixture(autouse=True)
def with_oidc(directory: Directory) -> None:
    directory.config = PortalConfig.model_validate({**CONFIG, "oidc": OIDC})


async def sign_in(browser: Browser, idp: FakeIdentityProvider, **query: str) -> int:
    answer = await browser.get("/portal/oidc")
    assert answer.status == 303, browser.text
    given = {"code": "good", "state": idp.visit(answer.headers["Location"]), **query}
    return (await browser.get("/portal/callback", params=given)).status


async def test_a_user_comes_back_signed_in(browser: Browser, idp: FakeIdentityProvider) -> None:
    assert await sign_in(browser, idp) == 303
    await browser.get("/keys")
    assert "alice@example.com" in browser.text
    assert ">user<" in browser.text
    await browser.post("/portal/keys", title="laptop", days="")
    assert browser.new_key.startswith("sk-stoker-")


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"realm_access": {"roles": ["offline_access", "ai-admins"]}}, "admin"),
        ({"realm_access": {"roles": "ai-admins"}}, "admin"),
        ({"realm_access.roles": ["ai-users"]}, "user"),
    ],
)
async def test_roles_come_from_where_the_gateway_says(
    browser: Browser, idp: FakeIdentityProvider, claims: dict[str, Any], role: str
) -> None:
    idp.claims |= claims
    assert await sign_in(browser, idp) == 303
    assert browser.claims()["role"] == role


@pytest.mark.parametrize(
    "claims",
    [
        {"realm_access": {"roles": ["somebody-else"]}},
        {"realm_access": None},
        {"realm_access": {"roles": {"ai-admins": True}}},
        {"realm_access": ["ai-admins"]},
        {"iss": "https://evil.example.com"},
        {"aud": "another-client"},
        {"exp": 1},
        {"exp": None},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
        {"email": None},
        {"email_verified": False},
    ],
)
async def test_whoever_may_not_in_stays_out(
    browser: Browser, idp: FakeIdentityProvider, claims: dict[str, Any]
) -> None:
    idp.claims |= claims
    assert await sign_in(browser, idp) == 403
    assert "stoker" not in browser.cookies()


async def test_a_token_signed_by_somebody_else_is_refused(browser: Browser, idp: FakeIdentityProvider) -> None:
    idp.signing_key = RSAKey.generate_key(2048, {"kid": "one"})
    assert await sign_in(browser, idp) == 403


async def test_a_public_key_signs_nothing(browser: Browser, idp: FakeIdentityProvider) -> None:
    """Key confusion: an HS256 token whose secret is the public key."""
    idp.header = {"alg": "HS256", "kid": "one"}
    idp.hmac_secret = idp.key.as_pem(private=False)
    assert await sign_in(browser, idp) == 403


async def test_an_unsigned_token_is_refused(browser: Browser, idp: FakeIdentityProvider) -> None:
    idp.header = {"alg": "none"}
    assert await sign_in(browser, idp) == 403


async def test_the_provider_may_change_its_keys(browser: Browser, idp: FakeIdentityProvider) -> None:
    assert await sign_in(browser, idp) == 303
    await browser.get("/keys")
    await browser.post("/portal/sign-out")
    idp.key, idp.header = RSAKey.generate_key(2048, {"kid": "two"}), {"alg": "RS256", "kid": "two"}
    assert await sign_in(browser, idp) == 303


async def test_the_way_back_needs_the_way_there(browsers: Any, idp: FakeIdentityProvider) -> None:
    mine, other = browsers(), browsers()
    assert await sign_in(mine, idp, state="guessed") == 403
    answer = await mine.get("/portal/oidc")
    state = idp.visit(answer.headers["Location"])
    assert (await other.get("/portal/callback", params={"code": "good", "state": state})).status == 403
    assert (await mine.get("/portal/callback", params={"code": "bad", "state": state})).status == 403
    assert "the code is not good" in mine.text


async def test_what_the_provider_says_is_shown_as_text(browser: Browser, idp: FakeIdentityProvider) -> None:
    assert await sign_in(browser, idp, error="access_denied", error_description="<b>no</b>") == 403
    raw = await (await browser._client.get("/portal/callback", params={"error": "<i>x</i>"})).text()
    assert "<i>" not in raw


async def test_a_provider_that_calls_itself_otherwise_is_refused(browser: Browser, idp: FakeIdentityProvider) -> None:
    idp.issuer = ISSUER + "/"
    assert (await browser.get("/portal/oidc")).status == 403
    assert "to the letter" in browser.text


# As the products' documentation shows their ID tokens; see docs/portal.md.
RECORDED = {
    "keycloak": (
        {"roles_claim": "realm_access.roles"},
        {
            "sub": "f1",
            "email": "a@example.com",
            "email_verified": True,
            "realm_access": {"roles": ["default-roles-ai", "ai-admins"]},
        },
    ),
    "authentik": (
        {"roles_claim": "groups"},
        {"sub": "9c", "email": "a@example.com", "groups": ["authentik Admins", "ai-admins"], "preferred_username": "a"},
    ),
    "authelia": ({"roles_claim": "groups"}, {"sub": "3b", "email": "a@example.com", "groups": ["ai-admins", "dev"]}),
}


@pytest.mark.parametrize("product", RECORDED)
def test_claims_of_the_usual_products_give_a_role(product: str) -> None:
    paths, claims = RECORDED[product]
    oidc = PortalOidc(issuer="https://x", client_id="stoker", role_map={"ai-admins": "admin"}, **paths)
    person = judge(oidc, PortalConfig.model_validate(CONFIG), claims)
    assert (person.user, person.role) == ("a@example.com", "admin")


async def test_signing_out_ends_here_where_the_provider_has_no_end(browser: Browser, idp: FakeIdentityProvider) -> None:
    await sign_in(browser, idp)
    await browser.get("/keys")
    assert (await browser.post("/portal/sign-out")).headers["Location"] == "/"
    assert (await browser.get("/keys")).status == 303


async def test_signing_out_leads_to_the_end_of_the_session_at_the_provider_where_it_has_one(
    browser: Browser, idp: FakeIdentityProvider
) -> None:
    idp.more = {"end_session_endpoint": ISSUER + "/logout?x=1"}
    await sign_in(browser, idp)
    await browser.get("/keys")
    answer = await browser.post("/portal/sign-out")
    assert answer.status == 200
    assert f'href="{ISSUER}/logout?x=1&client_id=stoker"' in browser.text
    assert "Sign out</button>" not in browser.text
    assert (await browser.get("/keys")).status == 303


def test_whom_neither_the_map_nor_a_role_names_is_refused() -> None:
    roles = [{"name": "user"}, {"name": "team", "groups": ["dev"], "users": ["Y@example.com"]}]
    config = PortalConfig.model_validate({**CONFIG, "roles": roles})
    oidc = PortalOidc(issuer="https://x", client_id="c", role_map={"ai-users": "user", "gone": "gone"})
    stranger = {"sub": "x", "email": "x@example.com"}
    with pytest.raises(SignInRefused, match="no role here"):
        judge(oidc, config, stranger)
    with pytest.raises(SignInRefused, match="no role here"):
        judge(oidc, config, {**stranger, "roles": ["gone"]})
    assert judge(oidc, config, {**stranger, "groups": ["ai-users"]}).role == "user", "as at the API"
    # As at the API: what the map says comes before what a role says of its subjects.
    assert judge(oidc, config, {**stranger, "groups": ["dev"]}).role == "team"
    assert judge(oidc, config, {**stranger, "email": "y@example.com"}).role == "team"
    assert judge(oidc, config, {**stranger, "groups": ["dev"], "roles": ["ai-users"]}).role == "user"


async def test_a_provider_under_an_authority_of_ones_own_is_believed_when_that_is_trusted(tmp_path: Path) -> None:
    chain, key = make_certificate("localhost")
    context = server_context(chain, key, tmp_path)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"issuer": issuer, "authorization_endpoint": f"{issuer}/auth"}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        issuer = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        told = {**OIDC, "issuer": issuer}
        with pytest.raises(SignInRefused, match="does not answer"):
            await IdentityProvider("secret").begin(PortalOidc.model_validate(told), "https://ai.example.com/back")
        trusting = PortalOidc.model_validate({**told, "authorities": chain.decode()})
        where, _ = await IdentityProvider("secret").begin(trusting, "https://ai.example.com/back")
        assert where.startswith(f"{issuer}/auth?")
