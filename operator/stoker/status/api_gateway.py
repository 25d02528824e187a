"""Status of an ApiGateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from stoker.api.api_gateway import ApiGateway, ApiGatewayStatus, ModelCounts, base_url
from stoker.api.base import LocalObjectReference
from stoker.api.expose import node_port_of
from stoker.api.names import client_files_name, web_ui_admin_name
from stoker.api.observed import ObservedWorkload
from stoker.errors import StokerError
from stoker.status.conditions import Cause, Verdict, build_conditions, cause_of
from stoker.status.pods import diagnose
from stoker.status.usage import ObservedUsage, judge_usage
from stoker.status.web_ui import ObservedWebUI, judge_web_ui
from stoker.status.workload import Workload

_NOTHING = ObservedWorkload(deployment=None)


def compute_api_gateway_status(
    gateway: ApiGateway,
    *,
    workload: ObservedWorkload | None,
    models: int,
    ready_models: int,
    sleeping_models: int,
    keys: int,
    service: Mapping[str, Any] | None,
    admin_secret_name: str | None,
    counts_together: bool = False,
    web_ui: ObservedWebUI | None = None,
    usage: ObservedUsage | None = None,
    problem: StokerError | None,
    now: datetime,
) -> ApiGatewayStatus:
    """Programmed: the pods are told what to do and the address exists. Ready: somebody answers there."""
    seen = workload or _NOTHING
    address = base_url(gateway, service)
    observed = seen.deployment
    chat = judge_web_ui(gateway, web_ui) if web_ui is not None else None
    verdict = _judge(gateway, seen, problem, address, service)
    if chat is not None:
        verdict = replace(verdict, cause=verdict.cause or chat.cause, extra=(*verdict.extra, *chat.conditions))
    if usage is not None:
        verdict = replace(verdict, extra=(*verdict.extra, judge_usage(gateway, usage)))
    return ApiGatewayStatus(
        observed_generation=gateway.metadata.generation,
        url=address,
        models=ModelCounts(total=models, ready=ready_models, sleeping=sleeping_models),
        keys=keys,
        replicas=observed.replicas if observed else 0,
        ready_replicas=observed.ready_replicas if observed else 0,
        limit_shares=max(1, observed.ready_replicas if observed else 0),
        limits_counted="Together" if counts_together else "ByShares",
        admin_secret_name=admin_secret_name,
        client_config_ref=LocalObjectReference(name=client_files_name(gateway.metadata.name)) if address else None,
        web_ui_url=chat.url if chat else None,
        web_ui_admin_secret_name=web_ui_admin_name(gateway.metadata.name) if chat else None,
        conditions=build_conditions(
            gateway.status.conditions,
            verdict,
            generation=gateway.metadata.generation,
            now=now,
        ),
    )


def _judge(
    gateway: ApiGateway,
    seen: ObservedWorkload,
    problem: StokerError | None,
    address: str | None,
    service: Mapping[str, Any] | None,
) -> Verdict:
    name, wanted = gateway.metadata.name, gateway.spec.replicas
    described = Workload("ApiGateway", name, "envoy", "Gateway", f"deployment/{name}")
    # Why nobody can be told what to do, or where to call.
    unprogrammed = cause_of(problem)
    if unprogrammed is None and seen.deployment is None:
        unprogrammed = Cause("GatewayStarting", f"The children of ApiGateway {name} are being created")
    if unprogrammed is None and address is None:
        unprogrammed = Cause(
            "AddressPending",
            f"Service {name} has no external address yet: it needs a load-balancer implementation in the cluster, or set "
            "spec.expose.type to NodePort or ClusterIP",
        )
    cause = unprogrammed or diagnose(described, seen, wanted)
    if unprogrammed:
        programmed = ("Programmed", False, unprogrammed.reason, unprogrammed.message)
    else:
        programmed = ("Programmed", True, "Programmed", _where(gateway, address, service))
    serving = seen.deployment.ready_replicas if seen.deployment else 0
    if wanted == 0 and problem is None:
        stopped = f"ApiGateway {name} is stopped: set spec.replicas to start it"
        return Verdict(True, "Stopped", stopped, cause, (programmed,))
    if serving > 0 and address is not None:
        return Verdict(True, "Serving", f"{serving} of {wanted} replicas serve {address}", cause, (programmed,))
    if cause is None:
        cause = Cause("GatewayStarting", f"No replica of ApiGateway {name} serves yet")
    return Verdict(False, cause.reason, cause.message, cause, (programmed,))


def _where(gateway: ApiGateway, address: str | None, service: Mapping[str, Any] | None) -> str:
    port = node_port_of(service) if gateway.spec.expose.type == "NodePort" else None
    also = f" and port {port} of every node" if port else ""
    return f"Clients reach it at {address}{also}"
