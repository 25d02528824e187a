from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from gateway.certificates import make_certificate

from stoker.desired.gateway_certificate import check_gateway_certificate
from stoker.errors import Stalled

CHAIN, KEY = make_certificate(days=30)
NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("data", "later", "reason"),
    [
        (None, 0, "CertificateMissing"),
        ({}, 0, "CertificateMissing"),
        ({"tls.crt": CHAIN}, 0, "CertificateMissing"),
        ({"tls.crt": CHAIN, "tls.key": b""}, 0, "CertificateMissing"),
        ({"tls.crt": CHAIN, "tls.key": make_certificate()[1]}, 0, "CertificateInvalid"),
        ({"tls.crt": CHAIN, "tls.key": KEY}, 31, "CertificateExpired"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said_with_the_secrets_name(make_gateway, data, later, reason) -> None:
    gateway = make_gateway(expose={"tls": {"secretName": "front"}})
    with pytest.raises(Stalled) as stalled:
        check_gateway_certificate(gateway, data, NOW + timedelta(days=later))
    assert stalled.value.reason == reason
    assert "Secret front" in stalled.value.message


def test_a_good_certificate_and_none_at_all_are_no_trouble(make_gateway) -> None:
    check_gateway_certificate(
        make_gateway(expose={"tls": {"secretName": "front"}}), {"tls.crt": CHAIN, "tls.key": KEY}, NOW
    )
    check_gateway_certificate(make_gateway(), None, NOW)
