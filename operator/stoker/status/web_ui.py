"""What a gateway's status says of its web chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.api.api_gateway import ApiGateway
from stoker.api.expose import service_address
from stoker.api.names import web_ui_name
from stoker.api.observed import ObservedWorkload
from stoker.api.web_ui import WebUI
from stoker.errors import StokerError
from stoker.status.conditions import Cause, cause_of
from stoker.status.pods import diagnose
from stoker.status.workload import Workload


@dataclass(frozen=True)
class ObservedWebUI:
    """What was seen of it."""

    ui: WebUI
    workload: ObservedWorkload
    service: Mapping[str, Any] | None
    weakened: tuple[str, ...] = ()
    """The user's settings that take a guard away."""
    problem: StokerError | None = None


@dataclass(frozen=True)
class WebUIVerdict:
    """What is told of it."""

    url: str | None
    conditions: tuple[tuple[str, bool, str, str], ...]
    cause: Cause | None
    """Why it is not as it should be."""


def judge_web_ui(gateway: ApiGateway, seen: ObservedWebUI) -> WebUIVerdict:
    """WebUIReady: people can chat. WebUISecure: no setting of the user's takes a guard away."""
    name = web_ui_name(gateway.metadata.name)
    url = seen.ui.url or service_address(name, gateway.metadata.namespace, seen.ui.expose, seen.service)
    described = Workload(
        "ApiGateway",
        gateway.metadata.name,
        "open-webui",
        "WebUI",
        f"statefulset/{name}",
        child=f"StatefulSet {name}",
        memory_advice="raise spec.webUI.resources.limits.memory",
    )
    cause = cause_of(seen.problem) or diagnose(described, seen.workload, seen.ui.replicas)
    serving = seen.workload.deployment.ready_replicas if seen.workload.deployment else 0
    if seen.ui.replicas == 0 and cause is None:
        ready = ("WebUIReady", True, "Stopped", "The web UI is stopped: set spec.webUI.replicas to start it")
    elif serving > 0 and url is not None:
        ready = ("WebUIReady", True, "Serving", f"{serving} of {seen.ui.replicas} replicas serve {url}")
    else:
        if cause is None:
            cause = (
                Cause("AddressPending", f"Service {name} has no external address yet")
                if serving
                else Cause(
                    "WebUIStarting", f"No replica of the web UI of ApiGateway {gateway.metadata.name} serves yet"
                )
            )
        ready = ("WebUIReady", False, cause.reason, cause.message)
    return WebUIVerdict(url, (ready, _secure(seen)), cause)


def _secure(seen: ObservedWebUI) -> tuple[str, bool, str, str]:
    if seen.weakened:
        return (
            "WebUISecure",
            False,
            "GuardOverridden",
            f"spec.webUI.env takes guards of the web UI away: {', '.join(seen.weakened)}. Remove what is not meant; docs/web-ui.md says what each does",
        )
    return ("WebUISecure", True, "Guarded", "Nobody comes in without an account, and all calls go through the gateway")
