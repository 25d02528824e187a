"""JSON Web Tokens with the classic defects."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

from gateway.ways.registry import Fortress, refused, way
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def claims(fortress: Fortress, **more: Any) -> dict[str, Any]:
    return {"iss": fortress.issuer.name, "aud": "gateway", "sub": "eve", "groups": ["staff"], "exp": time.time() + 300, **more}  # fmt: skip


def sign(fortress: Fortress, header: dict[str, Any], key: Any = None, **more: Any) -> str:
    signing = key or fortress.issuer.keys["first"]
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    return jws.serialize_compact(header, json.dumps(claims(fortress, **more)), signing, registry=registry)


@way("JWT without a signature")
def alg_none(fortress: Fortress) -> None:
    for alg in ("none", "None", "nOnE", "", None):
        body = part({"alg": alg, "kid": "first"}) + "." + part(claims(fortress))
        for token in (body + ".", body + ".AA", body):
            refused(fortress.ask(token), 401)


@way("JWT that names two algorithms")
def two_algorithms(fortress: Fortress) -> None:
    for first, second in (("RS256", "none"), ("none", "RS256")):
        head = f'{{"alg": "{first}", "kid": "first", "alg": "{second}"}}'.encode()
        token = base64.urlsafe_b64encode(head).decode().rstrip("=") + "." + part(claims(fortress))
        for signature in ("", "AA", fortress.issuer.token("eve").split(".")[2]):
            refused(fortress.ask(f"{token}.{signature}"), 401)


@way("JWT with its signature cut off")
def signature_cut(fortress: Fortress) -> None:
    head, payload, signature = fortress.issuer.token("eve").split(".")
    for token in (f"{head}.{payload}.", f"{head}.{payload}.{signature[:-8]}", f"{head}.{payload}.{'A' * len(signature)}"):  # fmt: skip
        refused(fortress.ask(token), 401)


@way("JWT with other claims under a good signature")
def claims_swapped(fortress: Fortress) -> None:
    head, _, signature = fortress.issuer.token("eve").split(".")
    refused(fortress.ask(f"{head}.{part(claims(fortress, groups=['boss']))}.{signature}"), 401)


@way("JWT signed with the public key as a shared secret")
def key_confusion(fortress: Fortress) -> None:
    public = fortress.issuer.keys["first"]
    for secret in (json.dumps(public.as_dict(private=False)).encode(), public.as_pem(private=False)):
        # By hand: libraries refuse to sign with what looks like a public key.
        text = part({"alg": "HS256", "kid": "first"}) + "." + part(claims(fortress))
        signature = hmac.digest(secret, text.encode(), "sha256")
        refused(fortress.ask(f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"), 401)


@way("JWT that brings its own key")
def own_key(fortress: Fortress) -> None:
    key = RSAKey.generate_key(2048, {"kid": "first"})
    for header in ({"jwk": key.as_dict(private=False)}, {"jku": fortress.issuer.name + "/evil"}, {"x5u": "https://evil.example"}, {"x5c": ["AAAA"]}):  # fmt: skip
        refused(fortress.ask(sign(fortress, {"alg": "RS256", "kid": "first", **header}, key)), 401)


@way("JWT with a kid that is a path or a query")
def kid_injection(fortress: Fortress) -> None:
    for kid in ("../../dev/null", "/dev/null", "' OR 1=1 --", "first\u0000", "x" * 5000):
        refused(fortress.ask(sign(fortress, {"alg": "RS256", "kid": kid}, RSAKey.generate_key(2048))), 401)


@way("JWT with another algorithm of the same key type")
def other_curve(fortress: Fortress) -> None:
    refused(fortress.ask(sign(fortress, {"alg": "ES256", "kid": "first"}, ECKey.generate_key("P-256"))), 401)


@way("JWT with a critical header that nobody knows")
def critical_header(fortress: Fortress) -> None:
    token = sign(fortress, {"alg": "RS256", "kid": "first", "b64": False, "crit": ["b64"]})
    refused(fortress.ask(token), 401)


@way("JWT that has expired")
def expired(fortress: Fortress) -> None:
    for exp in (time.time() - 100, 0, -1):
        refused(fortress.ask(fortress.issuer.token("eve", exp=exp)), 401)


@way("JWT that never expires")
def never_expires(fortress: Fortress) -> None:
    for exp in (None, "2099-01-01", 1e300, True, [9e9]):
        refused(fortress.ask(fortress.issuer.token("eve", exp=exp)), 401)


@way("JWT that is not valid yet")
def not_yet(fortress: Fortress) -> None:
    refused(fortress.ask(fortress.issuer.token("eve", nbf=time.time() + 300)), 401)
    refused(fortress.ask(fortress.issuer.token("eve", iat=time.time() + 300)), 401)


@way("JWT for somebody else")
def other_audience(fortress: Fortress) -> None:
    for audience in ("somebody else", [], None, {"gateway": 1}, "gateway ", ["Gateway"]):
        refused(fortress.ask(fortress.issuer.token("eve", aud=audience)), 401)


@way("JWT of a foreign issuer")
def foreign_issuer(fortress: Fortress) -> None:
    name = fortress.issuer.name
    for issuer in ("https://evil.example", name + "/", name.upper(), [name], None):
        refused(fortress.ask(fortress.issuer.token("eve", iss=issuer)), 401)


@way("JWT of somebody without a role")
def no_role(fortress: Fortress) -> None:
    for groups in ([], ["staff "], ["STAFF"], {"staff": True}, [["staff"]], "staff,boss"):
        refused(fortress.ask(fortress.issuer.token("eve", groups=groups)), 403)


@way("JWT whose user is no name")
def user_is_no_name(fortress: Fortress) -> None:
    for user in ("", "x" * 300, None, 7, ["alice"]):
        refused(fortress.ask(fortress.issuer.token(user)), 401)


@way("encrypted or half a JWT")
def not_a_jws(fortress: Fortress) -> None:
    head, payload, signature = fortress.issuer.token("eve").split(".")
    for token in (f"{head}.{payload}.{signature}.x.y", f"{head}.{signature}", f"{head}..{signature}", "..", "a.b.c", f"{head}=.{payload}=.{signature}="):  # fmt: skip
        refused(fortress.ask(token), 401)
