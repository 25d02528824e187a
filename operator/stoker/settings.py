"""What the chart tells `stoker operator`, by environment variables."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from stoker import __version__
from stoker.api.resolved import OperatorSettings
from stoker.environment import Environment

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


def read_settings(environment: Environment) -> tuple[OperatorSettings, ProcessSettings]:
    """All settings, from the environment."""
    namespace = environment.text("POD_NAMESPACE", "stoker-system")
    namespaces = environment.items("STOKER_WATCH_NAMESPACES")
    defaults = OperatorSettings(stoker_image="")
    return (
        OperatorSettings(
            stoker_image=environment.text("STOKER_IMAGE", DEFAULT_IMAGE),
            stoker_image_pull_policy=environment.text("STOKER_IMAGE_PULL_POLICY", defaults.stoker_image_pull_policy),
            envoy_image=environment.text("STOKER_ENVOY_IMAGE", defaults.envoy_image),
            web_ui_image=environment.text("STOKER_WEB_UI_IMAGE", defaults.web_ui_image),
            image_pull_secrets=environment.items("STOKER_IMAGE_PULL_SECRETS"),
            operator_namespace=namespace,
            operator_labels=environment.pairs("STOKER_OPERATOR_LABELS") or defaults.operator_labels,
            allow_pod_template=environment.flag("STOKER_ALLOW_POD_TEMPLATE", default=True),
            cluster_scoped=not namespaces,
        ),
        ProcessSettings(
            identity=environment.text("POD_NAME") or socket.gethostname(),
            lease_namespace=namespace,
            lease_name=environment.text("STOKER_LEASE_NAME", "stoker-operator"),
            namespaces=namespaces,
            http_port=environment.number("STOKER_HTTP_PORT", 8080),
            workers=environment.number("STOKER_WORKERS", 16),
            log_level=environment.text("STOKER_LOG_LEVEL", "INFO").upper(),
        ),
    )
