"""People who come to the portal from Keycloak, Authentik and Authelia; the provider is a fake, its tokens are signed for real."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from unit.identity_shapes import AUTHELIA, EMAIL, KEYCLOAK, KEYCLOAK_AS_IT_COMES, KEYCLOAK_USERINFO_ONLY, SHAPES, Shape

from stoker.portal.config import PortalConfig, PortalOidc
from stoker.portal.oidc import IdentityProvider, Person, SignInRefused

KEY = RSAKey.generate_key(2048, {"kid": "one"})
CONFIG = PortalConfig.model_validate({"roles": [{"name": "admin"}, {"name": "user"}]})


def told(shape: Shape) -> PortalOidc:
    oidc = shape.oidc()
    return PortalOidc(
        issuer=oidc["issuer"],
        client_id=oidc["clientId"],
        roles_claim=oidc.get("rolesClaim", "roles"),
        accept_unverified_email=oidc.get("acceptUnverifiedEmail", False),
        role_map={pair["value"]: pair["role"] for pair in oidc["roleMap"]},
    )


async def come_back(shape: Shape, id_token: dict[str, Any], userinfo: dict[str, Any]) -> Person:
    issuer = shape.id_token["iss"]
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.rpartition("/")[2])
        match asked[-1]:
            case "openid-configuration":
                names = ("authorization", "token", "userinfo")
                document = {f"{name}_endpoint": f"https://idp.example.com/{name}" for name in names}
                return httpx.Response(200, json={"issuer": issuer, "jwks_uri": "https://idp.example.com/jwks", **document})  # fmt: skip
            case "jwks":
                return httpx.Response(200, json=KeySet([KEY]).as_dict(private=False))
            case "token":
                claims = {**id_token, "nonce": "n", "exp": int(time.time()) + 60}
                signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, KEY)
                return httpx.Response(200, json={"id_token": signed, "access_token": "opaque"})
            case "userinfo":
                assert request.headers["authorization"] == "Bearer opaque"
                return httpx.Response(200, json=userinfo)
        return httpx.Response(404)

    provider = IdentityProvider("secret", httpx.MockTransport(answer))
    known = {"state": "s", "verifier": "v", "nonce": "n"}
    return await provider.finish(told(shape), CONFIG, "https://llm.example.com/cb", {"code": "c", "state": "s"}, known)


@pytest.mark.parametrize("shape", [*SHAPES, KEYCLOAK_USERINFO_ONLY], ids=str)
async def test_a_person_is_known_by_his_address_and_has_his_role(shape: Shape) -> None:
    assert await come_back(shape, shape.id_token, shape.userinfo) == Person(EMAIL, "admin")


async def test_who_has_no_role_in_what_the_provider_tells_applications_is_refused() -> None:
    shape = KEYCLOAK_AS_IT_COMES
    with pytest.raises(SignInRefused, match="no role here"):
        await come_back(shape, shape.id_token, shape.userinfo)


async def test_an_answer_about_somebody_else_is_not_taken_for_his() -> None:
    with pytest.raises(SignInRefused, match="somebody else"):
        await come_back(AUTHELIA, AUTHELIA.id_token, {**AUTHELIA.userinfo, "sub": "other"})


async def test_what_the_signed_token_says_is_not_changed_by_the_answer_beside_it() -> None:
    thin = {**AUTHELIA.id_token, "email": "bob@example.com"}
    person = await come_back(AUTHELIA, thin, AUTHELIA.userinfo)
    assert person.user == "bob@example.com"


@pytest.mark.parametrize("said", [False, "false", None, 1])
async def test_an_address_that_is_not_verified_is_refused_as_at_the_api(said: object) -> None:
    with pytest.raises(SignInRefused, match="is not verified"):
        await come_back(KEYCLOAK, {**KEYCLOAK.id_token, "email_verified": said}, KEYCLOAK.userinfo)
    with pytest.raises(SignInRefused, match="is not verified"):
        await come_back(AUTHELIA, AUTHELIA.id_token, {**AUTHELIA.userinfo, "email_verified": said})


async def test_an_address_of_which_the_provider_says_nothing_or_says_it_as_a_text_counts() -> None:
    silent = {name: value for name, value in KEYCLOAK.id_token.items() if name != "email_verified"}
    for token in (silent, {**silent, "email_verified": "true"}):
        assert (await come_back(KEYCLOAK, token, KEYCLOAK.userinfo)).user == EMAIL


async def test_somebody_without_the_claim_that_names_people_is_nobody() -> None:
    nameless = {name: value for name, value in KEYCLOAK.id_token.items() if name != "email"}
    with pytest.raises(SignInRefused, match="tells no email"):
        await come_back(KEYCLOAK, nameless, {"sub": nameless["sub"]})


async def test_capital_letters_of_an_address_make_nobody_else() -> None:
    token = {**KEYCLOAK.id_token, "email": "Alice@Example.com"}
    assert (await come_back(KEYCLOAK, token, KEYCLOAK.userinfo)).user == EMAIL
