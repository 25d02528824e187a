from __future__ import annotations

from datetime import UTC, datetime

import pytest
from gateway.certificates import make_certificate

from stoker.api.certificates import BadCertificate, check_certificate


def test_a_pair_that_fits_can_serve_until_its_end() -> None:
    assert 28 <= (check_certificate(*make_certificate(days=30)) - datetime.now(UTC)).days <= 30
    leaf, key = make_certificate()
    assert check_certificate(leaf + make_certificate()[0], key), "the first of the chain is the one that counts"


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        (b"", make_certificate()[1], "tls.crt cannot be read"),
        (b"nonsense", make_certificate()[1], "tls.crt cannot be read"),
        (make_certificate()[0], b"", "cannot be read"),
        (make_certificate()[0], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (make_certificate()[0], make_certificate()[1], "not the key of"),
        (make_certificate()[0] + make_certificate()[0], make_certificate()[1], "not the key of"),
    ],
)
def test_a_pair_that_cannot_serve_says_why(chain: bytes, key: bytes, why: str) -> None:
    with pytest.raises(BadCertificate, match=why):
        check_certificate(chain, key)
