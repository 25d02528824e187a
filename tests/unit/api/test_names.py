"""Names of children, labels and annotations."""

from __future__ import annotations

import pytest

from stoker.api import KIND_BY_NAME, ApiGateway, names
from stoker.api.names import OWNER_LABELS, child_labels


def test_a_child_says_who_manages_it_and_leads_to_its_owner() -> None:
    gateway = ApiGateway.model_validate({"metadata": {"name": "public", "namespace": "n"}})
    labels = child_labels(gateway, "gateway")
    assert labels["app.kubernetes.io/managed-by"] == "stoker"
    assert labels["stoker.dev/api-gateway"] == "public"
    assert labels["app.kubernetes.io/instance"] == "public"


def test_every_kind_has_an_owner_label_of_its_own() -> None:
    assert OWNER_LABELS.keys() == KIND_BY_NAME.keys()
    assert len(set(OWNER_LABELS.values())) == len(OWNER_LABELS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (names.cache_claim_name("llama"), "llama-cache"),
        (names.routes_secret_name("gw"), "gw-routes"),
        (names.keys_secret_name("gw", 3), "gw-keys-3"),
        (names.admin_key_name("gw"), "gw-admin"),
        (names.cluster_name("team", "m"), "team/m"),
    ],
)
def test_names_are_what_users_and_pods_rely_on(name: str, expected: str) -> None:
    assert name == expected


def test_a_short_digest_tells_sources_apart_and_stays_the_same() -> None:
    assert names.short_digest("a") == "ca978112ca1bbdca"
    assert names.short_digest("a") != names.short_digest("b")
