"""What is wrong with the certificate of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from stoker.api.api_gateway import ApiGateway
from stoker.api.certificates import BadCertificate, check_certificate
from stoker.api.names import CERTIFICATE_FIELD, CERTIFICATE_KEY_FIELD
from stoker.errors import Stalled


def check_gateway_certificate(gateway: ApiGateway, data: Mapping[str, bytes] | None, now: datetime) -> None:
    """Say it. Asked after the pods were told the rest: they go on with the certificate that they have."""
    name = gateway.spec.expose.certificate
    if name is None:
        return
    where = f"ApiGateway {gateway.metadata.name}"
    if data is None or not data.get(CERTIFICATE_FIELD) or not data.get(CERTIFICATE_KEY_FIELD):
        lack = "does not exist" if data is None else f"has no {CERTIFICATE_FIELD} and {CERTIFICATE_KEY_FIELD}"
        raise Stalled(
            "CertificateMissing",
            f"{where}: Secret {name} of spec.expose.tls {lack}: kubectl create secret tls {name} --cert=… --key=…, or let cert-manager "
            "make it; until then new pods do not serve, and those that serve go on as they are",
        )
    try:
        ends = check_certificate(data[CERTIFICATE_FIELD], data[CERTIFICATE_KEY_FIELD])
    except BadCertificate as error:
        raise Stalled(
            "CertificateInvalid",
            f"{where}: the certificate in Secret {name} is not taken over, {error}: put a pair that fits there",
        ) from error
    if ends <= now:
        raise Stalled(
            "CertificateExpired",
            f"{where}: the certificate in Secret {name} expired at {ends.isoformat()}; clients refuse it: renew it",
        )
