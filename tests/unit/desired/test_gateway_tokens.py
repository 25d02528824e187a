from __future__ import annotations

from typing import Any

import pytest

from stoker.desired.gateway_tokens import (
    build_introspection,
    build_issuers,
    build_user_tokens,
    check_introspection,
    check_issuers,
    check_user_tokens,
)
from stoker.errors import Stalled
from stoker.gateway.issuers import parse_introspection, parse_issuer, parse_user_tokens

SECRET = "x" * 32
BY_SECRET = {"issuer": "ours", "audiences": ["gateway"], "secretRef": {"name": "hs"}, "defaultRole": "user"}
BY_KEYS = {
    "issuer": "https://idp.example.com", "audiences": ["gateway"], "jwksUri": "https://idp.example.com/jwks",
    "claims": {"roles": "realm_access.roles"}, "roleMap": [{"value": "staff", "role": "user"}],
}  # fmt: skip


def test_a_gateway_is_told_whom_to_trust(make_gateway) -> None:
    by_secret, by_keys = build_issuers(make_gateway(auth={"jwt": [BY_SECRET, BY_KEYS]}), {"hs": SECRET})
    assert (by_secret["secret"], by_secret["jwksUri"], by_secret["defaultRole"]) == (SECRET, None, "user")
    paths = {"user": "sub", "groups": "groups", "roles": "realm_access.roles"}
    assert by_keys["claims"] == {**paths, "acceptUnverifiedEmail": False}
    by_address = {**BY_KEYS, "claims": {"email": "email"}}
    (told,) = build_issuers(make_gateway(auth={"jwt": [by_address]}), {})
    assert (parse_issuer(told).email, parse_issuer(told).unverified_email) == ("email", False)
    (told,) = build_issuers(make_gateway(auth={"jwt": [{**BY_KEYS, "claims": {"acceptUnverifiedEmail": True}}]}), {})
    assert parse_issuer(told).unverified_email
    for told in (by_secret, by_keys):
        assert parse_issuer(told).issuer == told["issuer"], "the gateway reads what it is told"
    assert build_issuers(make_gateway(), {}) == []


@pytest.mark.parametrize("secrets", [{}, {"hs": ""}, {"hs": "short"}])
def test_without_a_good_secret_an_issuer_is_left_out_and_it_is_said(make_gateway, secrets: dict[str, str]) -> None:
    gateway = make_gateway(auth={"jwt": [BY_SECRET, BY_KEYS]})
    assert [told["issuer"] for told in build_issuers(gateway, secrets)] == ["https://idp.example.com"]
    with pytest.raises(Stalled) as stalled:
        check_issuers(gateway, secrets)
    assert stalled.value.reason == "TokenSecretMissing"
    assert "kubectl create secret generic hs" in stalled.value.message


@pytest.mark.parametrize("change", [{"defaultRole": "gone"}, {"roleMap": [{"value": "x", "role": "gone"}]}])
def test_a_role_that_is_not_there_is_named(make_gateway, change: dict[str, Any]) -> None:
    with pytest.raises(Stalled) as stalled:
        check_issuers(make_gateway(auth={"jwt": [{**BY_SECRET, **change}]}), {"hs": SECRET})
    assert (stalled.value.reason, "role gone" in stalled.value.message) == ("RoleNotFound", True)


def test_roles_of_the_gateway_and_built_in_ones_may_be_named(make_gateway) -> None:
    roles = [{"name": "own"}]
    mapped = {**BY_SECRET, "roleMap": [{"value": "x", "role": "own"}, {"value": "y", "role": "admin"}]}
    check_issuers(make_gateway(auth={"jwt": [mapped]}, roles=roles), {"hs": SECRET})


def test_a_gateway_is_told_what_makes_a_keys_user_tokens(make_key) -> None:
    key = make_key(userTokens={"secretRef": {"name": "webui"}})
    told = build_user_tokens(key, {"webui": SECRET})
    assert told == {"issuer": "open-webui", "secret": SECRET, "required": False}
    assert parse_user_tokens(told) is not None, "the gateway reads what it is told"
    check_user_tokens(key, SECRET)
    assert build_user_tokens(make_key(), {"webui": SECRET}) is None


@pytest.mark.parametrize("secret", ["", "short"])
def test_without_a_good_secret_a_key_speaks_for_nobody_and_it_is_said(make_key, secret: str) -> None:
    key = make_key(userTokens={"secretRef": {"name": "webui"}})
    assert build_user_tokens(key, {"webui": secret}) is None
    with pytest.raises(Stalled) as stalled:
        check_user_tokens(key, secret)
    assert stalled.value.reason == "TokenSecretMissing"
    assert "kubectl create secret generic webui" in stalled.value.message
    check_user_tokens(make_key(), "")


def test_without_address_and_secret_the_keys_are_found_by_discovery(make_gateway) -> None:
    named = {name: value for name, value in BY_KEYS.items() if name != "jwksUri"}
    (told,) = build_issuers(make_gateway(auth={"jwt": [named]}), {})
    assert parse_issuer(told).keys_address == "https://idp.example.com/.well-known/openid-configuration"
    for told in build_issuers(make_gateway(auth={"jwt": [BY_SECRET, BY_KEYS]}), {"hs": SECRET}):
        assert not parse_issuer(told).discovery


def test_an_issuer_whose_users_have_no_role_anywhere_is_named(make_gateway) -> None:
    alone = {name: value for name, value in BY_KEYS.items() if name != "roleMap"}
    with pytest.raises(Stalled) as stalled:
        check_issuers(make_gateway(auth={"jwt": [alone]}), {})
    assert stalled.value.reason == "NobodyHasARole"
    check_issuers(make_gateway(auth={"jwt": [alone]}, roles=[{"name": "own", "subjects": {"groups": ["staff"]}}]), {})


def test_a_key_that_only_speaks_for_users_is_left_out_while_its_secret_is_of_no_use(make_key) -> None:
    key = make_key(userTokens={"secretRef": {"name": "webui"}, "required": True})
    told = build_user_tokens(key, {})
    assert told == {"issuer": "open-webui", "secret": "", "required": True}
    with pytest.raises(ValueError, match="is not a text"):
        parse_user_tokens(told)


ASKED = {"url": "https://idp.example.com/introspect", "clientId": "gateway", "clientSecretRef": {"name": "oidc"}, "defaultRole": "user"}  # fmt: skip


def test_a_gateway_is_told_whom_to_ask_about_tokens(make_gateway) -> None:
    gateway = make_gateway(auth={"introspection": ASKED})
    told = build_introspection(gateway, "hush")
    read = parse_introspection(told)
    assert read is not None
    assert (read.url, read.client_id, read.client_secret, read.issuer.default_role) == (ASKED["url"], "gateway", "hush", "user")  # fmt: skip
    check_introspection(gateway, "hush")
    assert build_introspection(make_gateway(), "hush") is None
    check_introspection(make_gateway(), "")


def test_without_a_client_secret_nobody_is_asked_and_it_is_said(make_gateway) -> None:
    gateway = make_gateway(auth={"introspection": ASKED})
    assert build_introspection(gateway, "") is None
    with pytest.raises(Stalled) as stalled:
        check_introspection(gateway, "")
    assert stalled.value.reason == "TokenSecretMissing"
    assert "kubectl create secret generic oidc --from-literal=clientSecret" in stalled.value.message
    with pytest.raises(Stalled) as stalled:
        check_introspection(make_gateway(auth={"introspection": {**ASKED, "defaultRole": "gone"}}), "hush")
    assert stalled.value.reason == "RoleNotFound"
