"""What the chart tells `stoker operator`, by environment variables."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from stoker import __version__
from stoker.api.resolved import OperatorSettings

DEFAULT_IMAGE = f"ghcr.io/stoker-dev/stoker:{__version__}"


@dataclass(frozen=True)
class ProcessSettings:
    """How this process runs; children do not depend on it."""

    identity: str
    lease_namespace: str
    lease_name: str
    namespaces: tuple[str, ...]
    """Namespaces that are watched; empty for all."""
    http_port: int
    workers: int
    log_level: str


class InvalidSetting(Exception):
    """An environment variable that cannot be understood."""


def read_settings(environ: Mapping[str, str]) -> tuple[OperatorSettings, ProcessSettings]:
    """All settings, from the environment."""
    namespace = environ.get("POD_NAMESPACE") or "stoker-system"
    namespaces = _list(environ.get("STOKER_WATCH_NAMESPACES", ""))
    defaults = OperatorSettings(stoker_image="")
    return (
        OperatorSettings(
            stoker_image=environ.get("STOKER_IMAGE") or DEFAULT_IMAGE,
            stoker_image_pull_policy=environ.get("STOKER_IMAGE_PULL_POLICY") or defaults.stoker_image_pull_policy,
            envoy_image=environ.get("STOKER_ENVOY_IMAGE") or defaults.envoy_image,
            web_ui_image=environ.get("STOKER_WEB_UI_IMAGE") or defaults.web_ui_image,
            image_pull_secrets=_list(environ.get("STOKER_IMAGE_PULL_SECRETS", "")),
            operator_namespace=namespace,
            operator_labels=_map(environ.get("STOKER_OPERATOR_LABELS", "")) or defaults.operator_labels,
            allow_pod_template=_flag(environ, "STOKER_ALLOW_POD_TEMPLATE", default=True),
            cluster_scoped=not namespaces,
        ),
        ProcessSettings(
            identity=environ.get("POD_NAME") or socket.gethostname(),
            lease_namespace=namespace,
            lease_name=environ.get("STOKER_LEASE_NAME") or "stoker-operator",
            namespaces=namespaces,
            http_port=_number(environ, "STOKER_HTTP_PORT", default=8080),
            workers=_number(environ, "STOKER_WORKERS", default=16),
            log_level=(environ.get("STOKER_LOG_LEVEL") or "INFO").upper(),
        ),
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _map(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _list(text)]
    if any(not equals for _, equals, _ in pairs):
        raise InvalidSetting(f"STOKER_OPERATOR_LABELS must read key=value,key=value, not {text!r}")
    return {key: value for key, _, value in pairs}


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name, "").lower()
    if value not in ("", "true", "false"):
        raise InvalidSetting(f"{name} must be true or false, not {value!r}")
    return value == "true" if value else default


def _number(environ: Mapping[str, str], name: str, *, default: int) -> int:
    value = environ.get(name, "")
    if value and not value.isdigit():
        raise InvalidSetting(f"{name} must be a number, not {value!r}")
    return int(value) if value else default
