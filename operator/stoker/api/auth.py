"""Who may call a gateway: issuers whose tokens are let in, sign-on, and the roles of keys and people."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.base import (
    SERVICE_URL,
    ApiModel,
    Cel,
    DnsLabel,
    LocalObjectReference,
    MapKeys,
    RequestLimits,
)

BUILT_IN_ROLES = ("admin", "user")
ClaimPath = Annotated[str, Field(min_length=1, max_length=256)]


class Claims(ApiModel):
    """Where a token says what: names of claims, or paths of names with dots between them."""

    user: ClaimPath = "sub"
    """The user, for logs and limits."""
    email: ClaimPath | None = None
    """His address, where people are known by it (spec.owner of ApiKeys): then logs, usage and limits by user go by it, and spec.roles[].subjects.users may name it. Not believed where the token says `email_verified: false`. Default: he is known by `user`."""
    accept_unverified_email: bool = False
    """Believes addresses of which the issuer says `email_verified: false`: where people cannot change their own address there. Default: an address in `email` is left out then, and a token is refused whose `user` is the claim email."""
    groups: ClaimPath = "groups"
    """His groups: a text or a list of texts."""
    roles: ClaimPath = "roles"
    """His roles, such as realm_access.roles: a text or a list of texts."""


class RoleMapping(ApiModel):
    """A group or role of the identity provider, and what it is here."""

    value: Annotated[str, Field(min_length=1, max_length=256)]
    """A value of the roles or groups claim."""
    role: DnsLabel
    """One of this gateway's roles (spec.roles, or admin or user)."""


class JwtIssuer(ApiModel):
    """An issuer whose JSON Web Tokens are let in beside API keys."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.jwksUri) || !has(self.secretRef)",
            "auth.jwt: give jwksUri (public keys) or secretRef (HS256), not both",
        ),
        Cel(
            f"has(self.jwksUri) || has(self.secretRef) || self.issuer.startsWith('https://') || self.issuer.matches('{SERVICE_URL}')",
            "auth.jwt: without jwksUri and secretRef the keys are found by the issuer's discovery document, and issuer must be https://, or http:// of a Service of this cluster",
        ),
        Cel(
            f"!has(self.jwksUri) || self.jwksUri.startsWith('https://') || self.jwksUri.matches('{SERVICE_URL}')",
            "auth.jwt: jwksUri must be https://, or http:// of a Service of this cluster (http://NAME.NAMESPACE.svc/PATH)",
        ),
    )

    issuer: Annotated[str, Field(min_length=1, max_length=512)]
    """What the claim iss must be, to the letter."""
    audiences: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=16)]
    """One of these must be in the claim aud."""
    jwks_uri: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s]+$")] | None = None
    """Where the issuer shows its public keys (RS, PS, ES, EdDSA). Fetched every five minutes, and when a token names a new one. Default: what the issuer's discovery document (ISSUER/.well-known/openid-configuration) says."""
    secret_ref: LocalObjectReference | None = None
    """Secret whose key `secret` (32 bytes or more) signs tokens with HS256."""
    claims: Claims = Claims()
    """Where its tokens say what."""
    role_map: Annotated[list[RoleMapping], Field(min_length=1, max_length=64)] | None = None
    """Roles by the values of the roles and groups claims; the first that fits counts."""
    default_role: DnsLabel | None = None
    """Role of users whom neither roleMap nor spec.roles[].subjects name. Default: they are refused."""


class Oidc(ApiModel):
    """Sign-on by OpenID Connect: people in the web chat, and the same issuer's tokens at the API."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            f"self.issuer.startsWith('https://') || self.issuer.matches('{SERVICE_URL}')",
            "auth.oidc.issuer must be https://, or http:// of a Service of this cluster (http://NAME.NAMESPACE.svc/PATH)",
        ),
        # Open WebUI takes a list with commas, in which * is everybody.
        Cel(
            "!has(self.roleMap) || self.roleMap.all(pair, !pair.value.contains(',') && pair.value != '*')",
            "auth.oidc.roleMap: a value has no commas, and is not *",
        ),
    )

    issuer: Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s]+$")]
    """The issuer, to the letter; its discovery document is at ISSUER/.well-known/openid-configuration."""
    client_id: Annotated[str, Field(min_length=1, max_length=256)]
    """How the web chat is registered there, with the redirect address <webUI.url>/oauth/oidc/callback."""
    client_secret_ref: LocalObjectReference
    """Secret whose key `clientSecret` the web chat proves that with."""
    provider_name: Annotated[str, Field(min_length=1, max_length=64)] = "SSO"
    """What the button says: Continue with …"""
    scopes: Annotated[
        list[Annotated[str, Field(pattern=r"^[^\s]+$", max_length=64)]], Field(min_length=1, max_length=16)
    ] = [
        "openid",
        "email",
        "profile",
    ]
    """What is asked for."""
    audiences: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=16)] | None
    ) = None
    """At the API, one of these must be in a token's claim aud. Default: clientId."""
    email_claim: ClaimPath = "email"
    """Who somebody is: in the web chat, and at the API in logs, limits and usage. Capital letters make no difference."""
    accept_unverified_email: bool = False
    """Lets in people of whose address the issuer says `email_verified: false`, as Authentik does of everybody: where they cannot change it themselves. Default: the API and the portal refuse them; the web chat does not look."""
    roles_claim: ClaimPath = "roles"
    """His roles: a claim, or a path such as realm_access.roles. Name the groups claim where groups are what roles depend on."""
    groups_claim: ClaimPath = "groups"
    """His groups; they become groups of the web chat. Where roleMap names roles other than admin and user, the values of rolesClaim do, for by its groups the web chat tells the gateway who somebody is."""
    role_map: Annotated[list[RoleMapping], Field(min_length=1, max_length=64)] | None = None
    """Roles by values of rolesClaim and groupsClaim; the first that fits counts, at the API and in the portal. In the web chat itself, which looks at rolesClaim only, admin is admin, and every other role user. Whose roles are not in it is refused there; who has none waits for an admin. Default: admin is admin, and user is user."""
    password_login: bool = False
    """Lets accounts of the web chat's own sign in beside it, the first admin's too."""

    @property
    def roles(self) -> tuple[RoleMapping, ...]:
        """roleMap with its default."""
        return tuple(self.role_map or (RoleMapping(value=role, role=role) for role in BUILT_IN_ROLES))

    @property
    def as_jwt_issuer(self) -> JwtIssuer:
        """The same, for tokens at the API."""
        return JwtIssuer(
            issuer=self.issuer,
            audiences=self.audiences or [self.client_id],
            claims=Claims(
                user=self.email_claim,
                accept_unverified_email=self.accept_unverified_email,
                groups=self.groups_claim,
                roles=self.roles_claim,
            ),
            role_map=list(self.roles),
        )


class Introspection(ApiModel):
    """An issuer that is asked about tokens which are no JSON Web Tokens (RFC 7662)."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            f"self.url.startsWith('https://') || self.url.matches('{SERVICE_URL}')",
            "auth.introspection: url must be https://, or http:// of a Service of this cluster (http://NAME.NAMESPACE.svc/PATH)",
        ),
    )

    url: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s]+$")]
    """Its introspection endpoint."""
    client_id: Annotated[str, Field(min_length=1, max_length=256)]
    """As whom this gateway asks."""
    client_secret_ref: LocalObjectReference
    """Secret whose key `clientSecret` proves it."""
    audiences: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=16)] | None
    ) = None
    """One of these must be in what it says of aud. Default: any token that it knows is let in."""
    claims: Claims = Claims()
    """Where its answers say what."""
    role_map: Annotated[list[RoleMapping], Field(min_length=1, max_length=64)] | None = None
    """Roles by the values of the roles and groups claims; the first that fits counts."""
    default_role: DnsLabel | None = None
    """Role of users whom neither roleMap nor spec.roles[].subjects name. Default: they are refused."""


class Auth(ApiModel):
    """Who may call."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.oidc) || !has(self.jwt) || !self.jwt.exists(entry, entry.issuer == self.oidc.issuer)",
            "auth.oidc: its issuer's tokens are let in without an entry in auth.jwt: remove that",
        ),
    )

    jwt: Annotated[list[JwtIssuer], Field(min_length=1, max_length=8), MapKeys(("issuer",))] | None = None
    """Issuers whose tokens are let in beside API keys, as `Authorization: Bearer TOKEN`. Default: none."""
    oidc: Oidc | None = None
    """Sign-on to the web chat; the issuer's tokens are let in at the API, too. Default: accounts of the web chat's own."""
    introspection: Introspection | None = None
    """Lets in tokens that say nothing by themselves; whose they are is asked, and believed for a minute. Default: none."""
    admin_key: bool = True
    """Makes ApiKey <gateway>-admin, so that three objects are enough to start. false removes it."""

    @property
    def issuers(self) -> tuple[JwtIssuer, ...]:
        """All whose tokens are let in."""
        return (*(self.jwt or ()), *((self.oidc.as_jwt_issuer,) if self.oidc else ()))


class Subjects(ApiModel):
    """Who has a role by what his token says."""

    users: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=256)] = []
    """Values of the claims that name the user (auth.jwt[].claims.user and email); in addresses capital letters make no difference."""
    groups: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] = []
    """Values of the groups claim."""


class Role(ApiModel):
    """What several callers have in common."""

    name: DnsLabel
    """What ApiKeys name in spec.role. admin and user are there without being listed, for all models; listed, they are as you say."""
    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)] = [
        "*"
    ]
    """Models the role may use, by served name; * and ? match as in a shell. A key may use what both it and its role may."""
    limits: RequestLimits | None = None
    """How much each caller of the role may ask for, unless his key says. Default: what the gateway says."""
    subjects: Subjects | None = None
    """Users and groups of any issuer in auth.jwt who have this role; the first role that names somebody is his, unless the issuer's roleMap says."""
