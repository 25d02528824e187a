from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stoker.api import ApiKey
from stoker.api.api_key import ApiKeyStatus, KeyHash
from stoker.errors import Stalled, Waiting
from stoker.status.api_key import compute_api_key_status


@pytest.fixture
def compute(metadata, now):
    def make(
        *,
        gateway_found: bool = True,
        role_found: bool = True,
        has_hash: bool = True,
        problem=None,
        at=now,
        status=None,
        **spec: Any,
    ) -> ApiKeyStatus:
        api_key = ApiKey.model_validate(
            {"metadata": metadata("alice"), "spec": {"gatewayRef": {"name": "gateway"}, **spec}}
        )
        if status is not None:
            api_key = api_key.model_copy(update={"status": status})
        return compute_api_key_status(
            api_key,
            gateway_found=gateway_found,
            role_found=role_found,
            hashes=[KeyHash(sha256="a" * 64, created_at=now)] if has_hash else [],
            prefix="sk-stoker-ab12…",
            secret_name="alice",
            rotated=None,
            problem=problem,
            now=at,
        )

    return make


def conditions(status: ApiKeyStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_key_that_opens_its_gateway_is_active(compute) -> None:
    status = compute()
    assert conditions(status) == {"Ready": ("True", "Active")}
    assert (status.prefix, status.observed_generation) == ("sk-stoker-ab12…", 3)
    assert status.secret_ref is not None
    assert status.secret_ref.name == "alice"


def test_the_same_facts_later_give_an_equal_status(compute, now) -> None:
    first = compute()
    assert compute(status=first, at=now + timedelta(hours=1)) == first


def test_a_key_of_a_role_that_is_not_there_is_not_let_in(compute) -> None:
    status = compute(role="gone", role_found=False)
    assert conditions(status) == {"Ready": ("False", "RoleNotFound"), "Stalled": ("True", "RoleNotFound")}
    assert "spec.roles" in status.conditions[0].message


def test_a_suspended_key_is_not_ready_and_nobody_has_to_act(compute) -> None:
    assert conditions(compute(suspend=True)) == {"Ready": ("False", "Suspended")}


def test_a_key_expires_at_its_moment(compute, now) -> None:
    assert conditions(compute(expiresAt=now + timedelta(seconds=1))) == {"Ready": ("True", "Active")}
    assert conditions(compute(expiresAt=now)) == {"Ready": ("False", "Expired")}


def test_a_missing_gateway_is_told_by_name(compute) -> None:
    status = compute(gateway_found=False)
    assert conditions(status) == {"Ready": ("False", "GatewayNotFound"), "Stalled": ("True", "GatewayNotFound")}
    assert "ApiGateway gateway, which does not exist in namespace team" in status.conditions[0].message


def test_a_lost_secret_stalls_but_the_key_goes_on_working(compute) -> None:
    status = compute(problem=Stalled("KeySecretMissing", "gone"))
    assert conditions(status) == {"Ready": ("True", "KeySecretMissing"), "Stalled": ("True", "KeySecretMissing")}


def test_without_a_key_a_problem_is_the_reason(compute) -> None:
    taken = compute(problem=Stalled("SecretNameTaken", "taken"), has_hash=False)
    assert conditions(taken) == {"Ready": ("False", "SecretNameTaken"), "Stalled": ("True", "SecretNameTaken")}
    waiting = compute(problem=Waiting("Something", "soon"), has_hash=False)
    assert conditions(waiting) == {"Ready": ("False", "Something"), "Reconciling": ("True", "Something")}


def test_a_key_that_is_not_made_yet_is_pending(compute) -> None:
    assert conditions(compute(has_hash=False)) == {
        "Ready": ("False", "KeyPending"),
        "Reconciling": ("True", "KeyPending"),
    }
