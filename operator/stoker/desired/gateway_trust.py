"""Whom a gateway trusts beside the public authorities, and what is wrong with them."""

from __future__ import annotations

from stoker.api.api_gateway import ApiGateway
from stoker.api.certificates import BadCertificate
from stoker.api.trust import read_authorities
from stoker.errors import Stalled


def usable_authorities(bundle: str | None) -> str:
    """What its pods are told: nothing in place of what they could not read."""
    try:
        return read_authorities(bundle or "")
    except BadCertificate:
        return ""


def check_gateway_authorities(gateway: ApiGateway, bundle: str | None) -> None:
    """Say what is missing. Asked after the pods were told the rest: they go on with the public authorities."""
    if gateway.spec.certificate_authorities is None:
        return
    place = gateway.spec.certificate_authorities.config_map_ref
    where = f"ApiGateway {gateway.metadata.name}: spec.certificateAuthorities: ConfigMap {place.name}"
    if bundle is None:
        raise Stalled(
            "AuthoritiesMissing",
            f"{where} has no {place.key}, so only public authorities are trusted: kubectl create configmap {place.name} "
            f"--from-file={place.key}=…",
        )
    try:
        read_authorities(bundle)
    except BadCertificate as error:
        raise Stalled(
            "AuthoritiesInvalid",
            f"{where}: {place.key} is not taken over, {error}: put certificates in PEM there",
        ) from error
