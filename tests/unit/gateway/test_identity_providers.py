"""Access tokens of Keycloak, Authentik and Authelia, judged by what spec.auth.oidc becomes at the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from unit.identity_shapes import (
    AUTHELIA,
    AUTHELIA_ID_TOKEN,
    AUTHENTIK,
    EMAIL,
    KEYCLOAK,
    KEYCLOAK_ACCESS_TOKEN,
    KEYCLOAK_AS_IT_COMES,
    SHAPES,
    Shape,
)

from stoker.api import ApiGateway
from stoker.desired.gateway_tokens import build_issuers
from stoker.gateway.issuers import parse_issuer
from stoker.gateway.tokens import BadToken, Identity, identify

NOW = 1_800_000_000.0


def judged(shape: Shape, settings: dict[str, Any] | None = None, **changed: Any) -> Identity:
    """As the operator tells the gateway, and the gateway reads it."""
    oidc = {**shape.oidc(), **(settings or {})}
    gateway = ApiGateway.model_validate({"metadata": {"name": "gateway"}, "spec": {"auth": {"oidc": oidc}}})
    (told,) = build_issuers(gateway, {})
    return identify(parse_issuer(told), {**shape.access_token, "iat": NOW, "exp": NOW + 600, **changed}, NOW)


@pytest.mark.parametrize("shape", [*SHAPES, KEYCLOAK_AS_IT_COMES], ids=str)
def test_a_person_is_known_by_his_address_and_has_his_role(shape: Shape) -> None:
    identity = judged(shape)
    assert (identity.user, identity.role) == (EMAIL, "admin")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whose_roles_are_not_mapped_has_none(shape: Shape) -> None:
    roles = {"roles": ["offline_access"]}
    others = {"realm_access": roles, "resource_access": {"chat": roles}, "groups": ["dev"], "roles": ["x"]}
    assert judged(shape, **others).role == ""


def test_a_token_for_somebody_else_is_refused() -> None:
    with pytest.raises(BadToken, match="aud"):
        judged(KEYCLOAK, aud=KEYCLOAK_ACCESS_TOKEN["aud"][1:])
    with pytest.raises(BadToken, match="aud"):
        judged(AUTHELIA, aud=[])


def test_a_token_without_the_address_is_refused_and_says_which_claim_it_lacks() -> None:
    """Authelia without a claims policy."""
    with pytest.raises(BadToken, match="email"):
        judged(AUTHELIA, email=None)
    assert "email" not in AUTHELIA_ID_TOKEN


@pytest.mark.parametrize("said", [False, "false", None, 1])
def test_an_address_that_its_issuer_has_not_verified_names_nobody(said: object) -> None:
    for shape in SHAPES:
        with pytest.raises(BadToken, match="not verified"):
            judged(shape, {"acceptUnverifiedEmail": False}, email_verified=said)


def test_authentik_says_so_of_everybody_which_somebody_has_to_allow() -> None:
    assert AUTHENTIK.access_token["email_verified"] is False
    with pytest.raises(BadToken, match="not verified"):
        judged(AUTHENTIK, {"acceptUnverifiedEmail": False})
    assert judged(AUTHENTIK).user == EMAIL


def test_a_name_that_is_no_address_needs_no_verification() -> None:
    told = judged(AUTHENTIK, {"acceptUnverifiedEmail": False, "emailClaim": "preferred_username"})
    assert told.user == "alice"


def test_capital_letters_of_an_address_make_nobody_else() -> None:
    one, other = judged(KEYCLOAK), judged(KEYCLOAK, email="Alice@Example.COM")
    assert (one.user, one.caller, one.names) == (other.user, other.caller, other.names)
