from __future__ import annotations

import pytest
from gateway.certificates import make_certificate

from stoker.desired.gateway_trust import check_gateway_authorities, usable_authorities
from stoker.errors import Stalled

ONE, TWO = (make_certificate(name)[0].decode() for name in ("one", "two"))


@pytest.fixture
def gateway(make_gateway):
    return make_gateway(certificateAuthorities={"configMapRef": {"name": "ours"}})


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (None, "AuthoritiesMissing"),
        ("", "AuthoritiesInvalid"),
        ("nonsense", "AuthoritiesInvalid"),
        (ONE.replace("M", "!", 3), "AuthoritiesInvalid"),
        (ONE * 600, "AuthoritiesInvalid"),
    ],
)
def test_what_is_wrong_with_authorities_is_said_and_nobody_else_is_trusted(gateway, bundle, reason: str) -> None:
    assert usable_authorities(bundle) == ""
    with pytest.raises(Stalled) as stalled:
        check_gateway_authorities(gateway, bundle)
    assert stalled.value.reason == reason
    assert "ConfigMap ours" in stalled.value.message
    assert "ca.crt" in stalled.value.message


def test_of_a_bundle_only_the_certificates_are_told(gateway) -> None:
    assert usable_authorities(f"# Größe\n{ONE}\n# two\n{TWO}") == ONE + TWO
    check_gateway_authorities(gateway, ONE)


def test_nothing_is_looked_for_where_nothing_is_wanted(make_gateway) -> None:
    check_gateway_authorities(make_gateway(), None)
    assert usable_authorities(None) == ""
