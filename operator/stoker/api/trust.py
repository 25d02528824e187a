"""Authorities of certificates that a gateway trusts beside the public ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stoker.api.base import ApiModel
from stoker.api.certificates import BadCertificate

LARGEST_BUNDLE = 256 << 10
"""Bytes; it travels in a Secret with everything else that a gateway is told, which holds 1 MiB."""


class AuthoritiesConfigMap(ApiModel):
    """A key of a ConfigMap in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "ca.crt"
    """Key in the ConfigMap."""


class CertificateAuthorities(ApiModel):
    """Authorities of your own, whose certificates the gateway trusts where it calls others."""

    config_map_ref: AuthoritiesConfigMap
    """ConfigMap with their certificates as PEM, 256 KiB at most. What is changed there counts within a minute, without a restart."""


def read_authorities(bundle: str) -> str:
    """The certificates of a bundle and nothing else of it; BadCertificate where nobody could be trusted by it."""
    # Not above: see check_certificate.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if len(bundle.encode()) > LARGEST_BUNDLE:
        raise BadCertificate(f"it is larger than {LARGEST_BUNDLE >> 10} KiB")
    try:
        found = x509.load_pem_x509_certificates(bundle.encode())
    except ValueError as error:
        raise BadCertificate(f"it cannot be read as PEM ({error})") from None
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found).decode()
