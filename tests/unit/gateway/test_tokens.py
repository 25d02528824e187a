from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from stoker.claims import claim
from stoker.gateway.issuers import Issuer, UserTokens, parse_issuer, parse_user_tokens
from stoker.gateway.tokens import BadToken, Identity, UnknownKey, Verifier, read_key_set, verify_user

NOW = 1_700_000_000.0
ISSUER = "https://idp.example.com"
ADDRESS = ISSUER + "/jwks"
SHARED = "https://shared.example.com"
SECRET = "0123456789abcdef0123456789abcdef"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "rsa"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SMALL = RSAKey.generate_key(1024, {"kid": "small"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
OCT = OctKey.import_key(SECRET, {"kid": "oct"})
KEYS = {"keys": [key.as_dict(private=False) for key in (RSA, SMALL, EC, ED)] + [OCT.as_dict(private=True)]}


def issuer(**more: Any) -> Issuer:
    entry = {"issuer": ISSUER, "audiences": ["gateway", "other"], "jwksUri": ADDRESS, "roleMap": [{"value": "staff", "role": "user"}]}  # fmt: skip
    return parse_issuer({**entry, **more})


@pytest.fixture
def verifier() -> Verifier:
    shared = issuer(issuer=SHARED, jwksUri=None, secret=SECRET)
    return Verifier([issuer(), shared], {ADDRESS: KEYS})


def claims(**more: Any) -> dict[str, Any]:
    made = {"iss": ISSUER, "aud": "gateway", "sub": "alice", "exp": NOW + 300, "iat": NOW, "groups": ["staff"], **more}
    return {name: value for name, value in made.items() if value is not ...}


def part(content: Any) -> str:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def sign(content: Any = None, key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    head = {"alg": alg, "kid": key.kid, **header}
    head = {name: value for name, value in head.items() if value is not ...}
    text = json.dumps(content or claims()).encode()
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jws.serialize_compact(head, text, key, algorithms=[alg], registry=registry)


def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(BadToken) as refused:
        verifier.verify(token, NOW)
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")]
)
def test_a_good_token_says_who_calls(verifier: Verifier, key: Any, alg: str) -> None:
    token = sign(claims(groups=["staff", "x"]), key, alg)
    assert verifier.verify(token, NOW) == Identity(
        f"{ISSUER} alice", "alice", "user", "", ("alice",), frozenset({"staff", "x"}), NOW + 360
    )


def test_an_address_is_who_somebody_is_where_the_issuer_vouches_for_it() -> None:
    meant = {"user": "sub", "email": "contact.mail"}
    found = Verifier([issuer(claims=meant)], {ADDRESS: KEYS})
    mail = {"contact": {"mail": "alice@example.com"}}
    told = found.verify(sign(claims(**mail, email_verified=True)), NOW)
    assert (told.caller, told.user, told.names) == (
        f"{ISSUER} alice",
        "alice@example.com",
        ("alice", "alice@example.com"),
    )
    assert found.verify(sign(claims(**mail)), NOW).user == "alice@example.com", "many issuers do not say"
    for unsure in (False, None, "false", 1):
        assert found.verify(sign(claims(**mail, email_verified=unsure)), NOW).names == ("alice",)
    generous = Verifier([issuer(claims={**meant, "acceptUnverifiedEmail": True})], {ADDRESS: KEYS})
    assert generous.verify(sign(claims(**mail, email_verified=False)), NOW).user == "alice@example.com"
    for odd in ({}, {"contact": {"mail": ["a@b"]}}, {"contact": {"mail": "x" * 300}}, {"contact": {"mail": ""}}):
        assert found.verify(sign(claims(**odd)), NOW).names == ("alice",)


def test_a_shared_secret_signs_for_its_own_issuer_only(verifier: Verifier) -> None:
    assert verifier.verify(sign(claims(iss=SHARED), OCT, "HS256"), NOW).user == "alice"
    assert "algorithm" in refusal(verifier, sign(claims(), OCT, "HS256"))
    assert "algorithm" in refusal(verifier, sign(claims(iss=SHARED), RSA))


def test_a_token_without_a_signature_is_none(verifier: Verifier) -> None:
    for alg in ("none", "None", "NONE", "nOnE", "", None, ["RS256"], 1):
        for name in (ISSUER, SHARED):
            body = part({"alg": alg, "kid": "rsa"}) + "." + part(claims(iss=name))
            for token in (body, body + ".", body + ".AAAA"):
                refusal(verifier, token)


def test_a_public_key_is_never_taken_for_a_shared_secret(verifier: Verifier) -> None:
    for public in (
        RSA.as_pem(private=False),
        json.dumps(RSA.as_dict(private=False)).encode(),
        EC.as_pem(private=False),
    ):
        signed = part({"alg": "HS256", "kid": "rsa", "typ": "JWT"}) + "." + part(claims())
        signature = hmac.new(public, signed.encode(), hashlib.sha256).digest()
        assert "algorithm" in refusal(verifier, f"{signed}.{part(signature)}")


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_along_does_not_count(verifier: Verifier, name: str) -> None:
    values = {"jwk": OTHER.as_dict(private=False), "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x", "x5c": [part(OTHER.as_der(private=False))]}  # fmt: skip
    assert "signature" in refusal(verifier, sign(key=OTHER, **{name: values[name]}))
    if name in ("jku", "x5u"):
        assert verifier.verify(sign(**{name: values[name]}), NOW).user == "alice"


def test_a_changed_token_is_refused(verifier: Verifier) -> None:
    head, body, signature = sign().split(".")
    assert "signature" in refusal(verifier, f"{head}.{part(claims(sub='root'))}.{signature}")
    assert "signature" in refusal(verifier, f"{part({'alg': 'RS384', 'kid': 'rsa'})}.{body}.{signature}")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert "signature" in refusal(verifier, f"{head}.{body}.{flipped}")
    for token in (f"{head}.{body}.", f"{head}.{body}", f"{head}..{signature}", f"{head}.{body}.{signature}.x", f"{head}.{body}={signature}", f" {head}.{body}.{signature}"):  # fmt: skip
        refusal(verifier, token)


def test_a_null_signature_of_an_elliptic_curve_is_refused(verifier: Verifier) -> None:
    head, body, _ = sign(key=EC, alg="ES256").split(".")
    assert "signature" in refusal(verifier, f"{head}.{body}.{part(bytes(64))}")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": ...}, "aud"),
        ({"aud": "gateway2"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": {"gateway": 1}}, "aud"),
        ({"exp": ...}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": str(NOW + 300)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"nbf": NOW + 61}, "nbf"),
        ({"nbf": "soon"}, "nbf"),
        ({"iat": NOW + 61}, "iat"),
        ({"sub": ...}, "user"),
        ({"sub": ""}, "user"),
        ({"sub": 7}, "user"),
        ({"sub": ["alice"]}, "user"),
        ({"sub": "x" * 300}, "user"),
    ],
)
def test_claims_that_do_not_hold_are_named(verifier: Verifier, change: dict[str, Any], word: str) -> None:
    assert word in refusal(verifier, sign(claims(**change)))


def test_a_minute_of_clock_skew_is_forgiven(verifier: Verifier) -> None:
    assert verifier.verify(sign(claims(exp=NOW - 59, nbf=NOW + 59, iat=NOW + 59)), NOW).expires_at == NOW + 1


def test_one_of_several_audiences_is_enough(verifier: Verifier) -> None:
    assert verifier.verify(sign(claims(aud=["x", "other"])), NOW).user == "alice"


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"kid": 7}, {"kid": ["rsa"]}])
def test_a_header_that_asks_for_more_is_refused(verifier: Verifier, header: dict[str, Any]) -> None:
    _, body, signature = sign().split(".")
    said = refusal(verifier, f"{part({'alg': 'RS256', 'kid': 'rsa', **header})}.{body}.{signature}")
    assert "kid" in said or "does not know" in said, "refused before any signature is looked at"


def test_a_key_that_is_not_shown_is_unknown_and_may_be_new(verifier: Verifier) -> None:
    for token in (sign(kid="new"), sign(kid="../rsa"), sign(key=EC, alg="ES256", kid="rsa"), sign(key=SMALL)):
        with pytest.raises(UnknownKey):
            verifier.verify(token, NOW)
    with pytest.raises(UnknownKey):
        Verifier([issuer()], {}).verify(sign(), NOW)


def test_without_a_kid_the_one_fitting_key_counts_and_of_two_none() -> None:
    token = sign(kid=...)
    alone = Verifier([issuer()], {ADDRESS: {"keys": [RSA.as_dict(private=False), EC.as_dict(private=False)]}})
    assert alone.verify(token, NOW).user == "alice"
    two = {"keys": [RSA.as_dict(private=False), {**OTHER.as_dict(private=False), "kid": "b"}]}
    assert "which key" in refusal(Verifier([issuer()], {ADDRESS: two}), token)


def test_one_issuers_keys_do_not_sign_for_another() -> None:
    other = issuer(issuer="https://b.example", jwksUri="https://b.example/jwks")
    both = Verifier([issuer(), other], {ADDRESS: KEYS, other.jwks_uri: {"keys": [OTHER.as_dict(private=False)]}})
    assert "signature" in refusal(both, sign(claims(iss="https://b.example"), RSA))
    assert both.verify(sign(claims(iss="https://b.example"), OTHER), NOW).user == "alice"


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "x"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        OCT.as_dict(private=True),
        {**RSA.as_dict(private=False), "use": "enc"},
        {**RSA.as_dict(private=False), "key_ops": ["encrypt"]},
        {**RSA.as_dict(private=False), "kid": 7},
        SMALL.as_dict(private=False),
    ],
)
def test_a_key_that_is_of_no_use_spoils_no_other(entry: dict[str, Any]) -> None:
    assert [key.kid for key in read_key_set({"keys": [entry, "x", None, EC.as_dict(private=False)]})] == ["ec"]


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": "x"}])
def test_a_set_that_is_none_has_no_keys(document: Any) -> None:
    assert read_key_set(document) == ()


def test_a_key_that_is_bound_to_an_algorithm_signs_with_no_other() -> None:
    bound = Verifier([issuer()], {ADDRESS: {"keys": [{**RSA.as_dict(private=False), "alg": "RS256"}]}})
    assert bound.verify(sign(), NOW).user == "alice"
    with pytest.raises(UnknownKey):
        bound.verify(sign(alg="PS256"), NOW)


def test_claims_are_found_by_name_and_by_path() -> None:
    content = {"a.b": 1, "a": {"b": 2, "c": {"d": [3]}}, "https://x.example/roles": ["r"]}
    assert [claim(content, path) for path in ("a.b", "a.c.d", "https://x.example/roles", "a.x", "a.b.c", "x")] == [1, [3], ["r"], None, None, None]  # fmt: skip


def test_the_first_value_that_has_a_role_counts_and_else_the_default() -> None:
    roles = [{"value": "boss", "role": "admin"}, {"value": "staff", "role": "user"}]
    found = Verifier([issuer(roleMap=roles, defaultRole="guest", claims={"roles": "realm.roles"})], {ADDRESS: KEYS})

    def role(**more: Any) -> str:
        identity = found.verify(sign(claims(**more)), NOW)
        return identity.role or identity.default_role

    assert role(groups=["staff"], realm={"roles": ["boss"]}) == "admin"
    assert role(groups="staff") == "user"
    assert role(groups=["nobody"], roles=["boss"]) == "guest"
    assert role(groups=[["boss"], {"boss": 1}, None]) == "guest"


def test_a_users_name_cannot_leave_its_header() -> None:
    found = Verifier([issuer(claims={"user": "name"})], {ADDRESS: KEYS})
    assert found.verify(sign(claims(name="a\r\nx-gw-cluster: b ü")), NOW).user == "a%0D%0Ax-gw-cluster: b %C3%BC"
    assert found.verify(sign(claims(name="a\ud800")), NOW).user == r"a\ud800"


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": ""}, {"issuer": None}, {"audiences": []}, {"audiences": "gateway"[:0]}, {"audiences": [""]}, {"jwksUri": None},
        {"secret": SECRET}, {"jwksUri": None, "secret": "short"}, {"jwksUri": "file:///etc/passwd"}, {"roleMap": [{"value": "x"}]},
    ],
)  # fmt: skip
def test_half_an_issuer_is_none(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        issuer(**change)


@given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}\Z"))
def test_any_text_is_refused(text: str) -> None:
    refusal(Verifier([issuer()], {ADDRESS: KEYS}), text)


def test_json_that_is_no_token_is_refused(verifier: Verifier) -> None:
    good = part({"alg": "RS256", "kid": "rsa"})
    for body in (b"[]", b"1", b"\xff", b"{", b"[" * 100_000, b'{"iss": NaN}'):
        refusal(verifier, f"{good}.{part(body)}.AAAA")
        refusal(verifier, f"{part(body)}.{part(claims())}.AAAA")


WEB_UI = UserTokens("open-webui", SECRET)
FROM_WEB_UI = {"sub": "5f0c", "email": "alice@example.com", "name": "Alice", "role": "admin", "iss": "open-webui", "iat": NOW, "exp": NOW + 300}  # fmt: skip


def test_a_service_names_its_user_by_his_address_or_else_by_its_own_number() -> None:
    user = verify_user(sign(FROM_WEB_UI, OCT, "HS256", kid=...), WEB_UI, NOW)
    assert (user.name, user.expires_at) == ("alice@example.com", NOW + 360)
    assert verify_user(sign({**FROM_WEB_UI, "email": None}, OCT, "HS256"), WEB_UI, NOW).name == "5f0c"
    odd = verify_user(sign({**FROM_WEB_UI, "email": "älice\r\nx: y"}, OCT, "HS256"), WEB_UI, NOW)
    assert odd.shown == "%C3%A4lice%0D%0Ax: y"
    assert verify_user(sign({**FROM_WEB_UI, "email": "Alice@Example.com"}, OCT, "HS256"), WEB_UI, NOW) == user


@pytest.mark.parametrize(
    "token",
    [
        sign({**FROM_WEB_UI, "iss": "other"}, OCT, "HS256"),
        sign({**FROM_WEB_UI, "exp": NOW - 61}, OCT, "HS256"),
        sign({**FROM_WEB_UI, "exp": None}, OCT, "HS256"),
        sign({**FROM_WEB_UI, "iat": NOW + 61}, OCT, "HS256"),
        sign({**FROM_WEB_UI, "email": 7, "sub": ["x"]}, OCT, "HS256"),
        sign(FROM_WEB_UI, OCT, "HS512"),
        sign(FROM_WEB_UI, RSA, "RS256"),
        sign(FROM_WEB_UI, OctKey.import_key("x" * 32, {"kid": "x"}), "HS256"),
        sign(FROM_WEB_UI, OCT, "HS256", b64=False, crit=["b64"]),
        "a.b",
        "",
    ],
)
def test_what_a_service_says_of_its_user_needs_its_secret_its_name_and_the_present(token: str) -> None:
    with pytest.raises(BadToken):
        verify_user(token, WEB_UI, NOW)


@pytest.mark.parametrize("entry", [{}, {"issuer": "open-webui"}, {"issuer": "open-webui", "secret": "short"}, {"issuer": "", "secret": SECRET}])  # fmt: skip
def test_half_of_what_makes_user_tokens_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse_user_tokens(entry)


def test_an_issuer_with_discovery_has_its_keys_by_its_document() -> None:
    found = issuer(jwksUri=None, discovery=True)
    assert found.keys_address == ISSUER + "/.well-known/openid-configuration"
    assert issuer(issuer=ISSUER + "/", jwksUri=None, discovery=True).keys_address == found.keys_address
    assert Verifier([found], {found.keys_address: KEYS}).verify(sign(), NOW).user == "alice"
    for half in ({"discovery": True}, {"jwksUri": None}, {"jwksUri": None, "discovery": True, "secret": SECRET}):
        with pytest.raises(ValueError, match="one of"):
            issuer(**half)
