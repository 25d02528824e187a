"""Whether a certificate and its key can serve TLS: asked by the operator for the status, and by a gateway before it takes a new one."""

from __future__ import annotations

from datetime import datetime


class BadCertificate(ValueError):
    """Not fit to serve; the message says why."""


def check_certificate(chain: bytes, key: bytes) -> datetime:
    """When the first certificate of the chain ends; BadCertificate where the pair cannot serve at all."""
    # Not above: cryptography takes time and memory of every process, and few gateways have a certificate of their own.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        certificates = x509.load_pem_x509_certificates(chain)
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "tls.crt" if b"CERTIFICATE" not in chain else "tls.crt or tls.key"
        raise BadCertificate(f"{what} cannot be read as PEM ({error})") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if certificates[0].public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise BadCertificate("tls.key is not the key of the first certificate in tls.crt")
    return certificates[0].not_valid_after_utc
