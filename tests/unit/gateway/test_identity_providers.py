"""Access tokens of Keycloak, Authentik and Authelia, judged by what spec.auth.oidc becomes at the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from unit.identity_shapes import (
    AUTHELIA,
    AUTHELIA_ID_TOKEN,
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


def judged(shape: Shape, **changed: Any) -> Identity:
    """As the operator tells the gateway, and the gateway reads it."""
    gateway = ApiGateway.model_validate({"metadata": {"name": "gateway"}, "spec": {"auth": {"oidc": shape.oidc()}}})
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
