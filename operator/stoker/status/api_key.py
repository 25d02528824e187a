"""Status of an ApiKey."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from stoker.api.api_key import ApiKey, ApiKeyStatus, KeyHash, KeyUsage
from stoker.api.base import LocalObjectReference
from stoker.errors import StokerError
from stoker.status.conditions import Cause, Verdict, build_conditions, cause_of

NOT_USED = KeyUsage()


def compute_api_key_status(
    api_key: ApiKey,
    *,
    gateway_found: bool,
    role_found: bool = True,
    hashes: Iterable[KeyHash],
    prefix: str | None,
    secret_name: str | None,
    rotated: str | None,
    used: KeyUsage = NOT_USED,
    problem: StokerError | None,
    now: datetime,
) -> ApiKeyStatus:
    """Ready means: the gateway accepts the key now."""
    kept = list(hashes)
    verdict = _judge(api_key, problem, now, gateway_found=gateway_found, role_found=role_found, has_hash=bool(kept))
    return ApiKeyStatus(
        observed_generation=api_key.metadata.generation,
        secret_ref=LocalObjectReference(name=secret_name) if secret_name else None,
        prefix=prefix,
        keys=kept,
        rotated=rotated,
        usage=used.usage,
        last_used_time=used.last_used_time,
        conditions=build_conditions(
            api_key.status.conditions, verdict, generation=api_key.metadata.generation, now=now
        ),
    )


def _judge(
    api_key: ApiKey,
    problem: StokerError | None,
    now: datetime,
    *,
    gateway_found: bool,
    role_found: bool,
    has_hash: bool,
) -> Verdict:
    name, spec = api_key.metadata.name, api_key.spec
    cause = cause_of(problem)
    if cause is None and not gateway_found:
        gateway = spec.gateway_ref.name
        cause = Cause(
            "GatewayNotFound",
            f"ApiKey {name} names ApiGateway {gateway}, which does not exist in namespace {api_key.metadata.namespace}: "
            "create it, or correct spec.gatewayRef.name",
            stalled=True,
        )
    if cause is None and not role_found:
        cause = Cause(
            "RoleNotFound",
            f"ApiKey {name} names the role {spec.role}, which ApiGateway {spec.gateway_ref.name} does not have, and is not let in: "
            "add it to spec.roles of the ApiGateway, or correct spec.role",
            stalled=True,
        )
    # Asked for, or foreseen: neither under way nor for somebody to mend.
    if spec.suspend:
        return Verdict(
            False, "Suspended", f"ApiKey {name} is suspended: set spec.suspend to false to let it in again", cause
        )
    if spec.expires_at is not None and spec.expires_at <= now:
        return Verdict(
            False,
            "Expired",
            f"ApiKey {name} expired at {spec.expires_at.isoformat()}: set a later spec.expiresAt",
            cause,
        )
    if cause is None and not has_hash:
        cause = Cause("KeyPending", f"The key of ApiKey {name} is being made")
    if cause is None:
        return Verdict(True, "Active", f"ApiGateway {spec.gateway_ref.name} accepts the key")
    # A lost Secret does not take the key away from those who have it.
    return Verdict(has_hash and gateway_found and role_found, cause.reason, cause.message, cause)
