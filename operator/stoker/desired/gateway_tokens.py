"""Whose tokens a gateway lets in: issuers as its pods are told of them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.api.api_gateway import ApiGateway
from stoker.api.api_key import ApiKey
from stoker.api.auth import Introspection, JwtIssuer
from stoker.api.names import CLIENT_SECRET_FIELD, JWT_SECRET_FIELD
from stoker.desired.objects import Object
from stoker.errors import Stalled

SHORTEST_SECRET = 32


def build_issuers(gateway: ApiGateway, secrets: Mapping[str, str]) -> list[Object]:
    """Issuers without those whose Secret is of no use: their tokens are refused, everything else goes on."""
    return [_issuer(issuer, secrets) for issuer in gateway.spec.auth.issuers if not _lacks_secret(issuer, secrets)]


def check_issuers(gateway: ApiGateway, secrets: Mapping[str, str]) -> None:
    """Say what is missing. Asked after the pods were told the rest, for one issuer's trouble must not hold up the others."""
    where = f"ApiGateway {gateway.metadata.name}"
    for issuer in gateway.spec.auth.issuers:
        if _lacks_secret(issuer, secrets):
            name = issuer.secret_ref.name if issuer.secret_ref else ""
            raise Stalled(
                "TokenSecretMissing",
                f"{where}: tokens of issuer {issuer.issuer} are refused, since Secret {name} has no {JWT_SECRET_FIELD} of {SHORTEST_SECRET} "
                f"bytes or more: kubectl create secret generic {name} --from-literal={JWT_SECRET_FIELD}=…",
            )
        _check_roles(gateway, issuer, f"{where}: spec.auth of issuer {issuer.issuer}")


def _check_roles(gateway: ApiGateway, issuer: JwtIssuer | Introspection, where: str) -> None:
    named = [pair.role for pair in issuer.role_map or ()] + ([issuer.default_role] if issuer.default_role else [])
    unknown = next((role for role in named if not gateway.has_role(role)), None)
    if not named and not any(role.subjects for role in gateway.spec.roles):
        raise Stalled(
            "NobodyHasARole",
            f"{where}: nobody whom it vouches for has a role here: give it a roleMap or a defaultRole, or name users or groups in "
            "spec.roles[].subjects",
        )
    if unknown is not None:
        raise Stalled(
            "RoleNotFound",
            f"{where} names the role {unknown}, which is not in spec.roles: add it, or correct the name; its users are refused",
        )


def build_user_tokens(key: ApiKey, secrets: Mapping[str, str]) -> Object | None:
    """What a gateway believes of the users that a key speaks for; nothing while its Secret is of no use, and its calls are the key's own.

    Where they are required, the gateway gets half an entry then, and leaves the key out.
    """
    tokens = key.spec.user_tokens
    if tokens is None:
        return None
    secret = secrets.get(tokens.secret_ref.name, "")
    if not is_usable(secret) and not tokens.required:
        return None
    return {"issuer": tokens.issuer, "secret": secret if is_usable(secret) else "", "required": tokens.required}


def is_usable(secret: str) -> bool:
    """Whether HS256 may be done with it."""
    return len(secret.encode()) >= SHORTEST_SECRET


def check_user_tokens(key: ApiKey, secret: str) -> None:
    """Say what is missing; the key itself goes on working."""
    tokens = key.spec.user_tokens
    if tokens is not None and not is_usable(secret):
        raise Stalled(
            "TokenSecretMissing",
            f"ApiKey {key.metadata.name} cannot speak for users, since Secret {tokens.secret_ref.name} has no {JWT_SECRET_FIELD} of "
            f"{SHORTEST_SECRET} bytes or more; its calls {'are refused' if tokens.required else 'count as its own'}. kubectl create secret generic {tokens.secret_ref.name} "
            f"--from-literal={JWT_SECRET_FIELD}=…",
        )


def build_role_map(gateway: ApiGateway) -> list[Object]:
    """Roles of people for whom a service calls, by what the web chat knows as their groups."""
    oidc = gateway.spec.auth.oidc
    return [{"value": pair.value, "role": pair.role} for pair in oidc.roles] if oidc else []


def build_introspection(gateway: ApiGateway, client_secret: str) -> Object | None:
    """Whom to ask about tokens; nobody while there is no secret to ask with."""
    asked = gateway.spec.auth.introspection
    if asked is None or not client_secret:
        return None
    return {
        "url": asked.url,
        "clientId": asked.client_id,
        "clientSecret": client_secret,
        "audiences": list(asked.audiences or ()),
        **_meanings(asked),
    }


def check_introspection(gateway: ApiGateway, client_secret: str) -> None:
    """Say what is missing; see check_issuers."""
    asked = gateway.spec.auth.introspection
    if asked is None:
        return
    where = f"ApiGateway {gateway.metadata.name}"
    if not client_secret:
        name = asked.client_secret_ref.name
        raise Stalled(
            "TokenSecretMissing",
            f"{where}: nobody is asked about tokens, since Secret {name} has no {CLIENT_SECRET_FIELD}: kubectl create secret generic {name} "
            f"--from-literal={CLIENT_SECRET_FIELD}=…",
        )
    _check_roles(gateway, asked, f"{where}: spec.auth.introspection")


def _lacks_secret(issuer: JwtIssuer, secrets: Mapping[str, str]) -> bool:
    return issuer.secret_ref is not None and not is_usable(secrets.get(issuer.secret_ref.name, ""))


def _issuer(issuer: JwtIssuer, secrets: Mapping[str, str]) -> Object:
    return {
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        "jwksUri": issuer.jwks_uri,
        "discovery": issuer.jwks_uri is None and issuer.secret_ref is None,
        "secret": secrets[issuer.secret_ref.name] if issuer.secret_ref else None,
        **_meanings(issuer),
    }


def _meanings(issuer: JwtIssuer | Introspection) -> Object:
    claims = issuer.claims
    return {
        "claims": claims.model_dump(by_alias=True, exclude_none=True),
        "roleMap": [{"value": pair.value, "role": pair.role} for pair in issuer.role_map or ()],
        "defaultRole": issuer.default_role,
    }
