"""Reconcile a ModelDeployment: the engine's Deployment, its Service, rights and policy."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from stoker.api import ModelDeployment
from stoker.api.inspection import ModelStatus
from stoker.api.observed import ObservedPod, ObservedWorkload
from stoker.api.resolved import ResolvedModelDeployment
from stoker.cluster.observe import observe_deployment
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import DEPLOYMENTS, TYPE_BY_KIND
from stoker.desired.choice import choose_engine
from stoker.desired.chosen import describe_update, read_chosen
from stoker.desired.fit import check_fit
from stoker.desired.model_deployment import (
    Reference,
    build_children,
    missing_reference,
    referenced_objects,
    resolve_model_deployment,
)
from stoker.errors import StokerError
from stoker.reconcile.context import Context
from stoker.reconcile.engine_key import keep_engine_key
from stoker.reconcile.publishing import find_publishers
from stoker.reconcile.report import report, retry_after
from stoker.reconcile.root_causes import with_root_causes
from stoker.status.model_deployment import compute_model_deployment_status


async def reconcile_model_deployment(context: Context, own: OwnObject, model: ModelDeployment) -> float | None:
    """One pass; says when to look again."""
    cache, settings, now = context.cache, context.settings, context.now()
    problem: StokerError | None = None
    resolved: ResolvedModelDeployment | None = None
    publishers, name_taken = find_publishers(cache, model)
    pods = cache.pods_of("ModelDeployment", model.key)
    scaled = context.scaled.get(model.key)
    try:
        child = cache.child(DEPLOYMENTS, model.key)
        previous = read_chosen(child)
        if model.spec.engine_ref is not None:
            engine, reason = cache.engine((model.metadata.namespace, model.spec.engine_ref.name)), None
        else:
            engine, reason = choose_engine(
                model, cache.engines(model.metadata.namespace), settings, previous, nodes=cache.nodes()
            )
        serving = any(pod.ready for pod in pods)
        resolved = resolve_model_deployment(
            model,
            engine,
            settings,
            previous=previous,
            publishers=publishers,
            engine_reason=reason,
            nodes=cache.nodes(),
            scaled=scaled.desired if scaled else None,
            present=child["spec"].get("replicas") if child else None,
            reported=[found for pod in pods if (found := _described(pod)) is not None],
            # A pod that is on its way may be replaced; all that serve shall not be.
            serving=serving and all(pod.ready or not _described(pod) for pod in pods),
        )
        await _check_references(context, resolved)
        await keep_engine_key(context, resolved)
        try:
            check_fit(resolved)
        except StokerError:
            if serving:
                raise
            # A pod that waits for ever would keep its devices from others.
            await _apply(context, replace(resolved, replicas=0))
            raise
        await _apply(context, resolved)
    except StokerError as error:
        problem = error
    workload = ObservedWorkload(
        deployment=observe_deployment(cache.child(DEPLOYMENTS, model.key)),
        pods=await with_root_causes(context, model.metadata.namespace, cache.pods_of("ModelDeployment", model.key)),
    )
    update = None
    if resolved is not None:
        update = describe_update(resolved.chosen, model, resolved.engine, resolved.source, settings)
    status = compute_model_deployment_status(
        model,
        resolved=resolved,
        workload=workload,
        problem=problem,
        gateways=publishers,
        name_taken=name_taken,
        update_available=update,
        scaling=scaled.status if scaled else model.status.autoscaling,
        now=now,
    )
    await report(context, own, status)
    return retry_after(problem, status.conditions, now)


def _described(pod: ObservedPod) -> ModelStatus | None:
    return pod.fetch.model if pod.fetch is not None else None


async def _apply(context: Context, resolved: ResolvedModelDeployment) -> None:
    children = build_children(resolved, context.settings)
    await context.children.apply_all(resolved.deployment, children)
    await context.children.prune(resolved.deployment, children)


async def _check_references(context: Context, resolved: ResolvedModelDeployment) -> None:
    """Look for what the pods need beside our own children; it is not watched, so it is asked for."""
    references = referenced_objects(resolved)
    found = await asyncio.gather(*(_exists(context, resolved.deployment, reference) for reference in references))
    for reference, exists in zip(references, found, strict=True):
        if not exists:
            raise missing_reference(resolved.deployment, reference)


async def _exists(context: Context, model: ModelDeployment, reference: Reference) -> bool:
    obj = await context.client.get(TYPE_BY_KIND[reference.kind], model.metadata.namespace, reference.name)
    if obj is None or "deletionTimestamp" in obj["metadata"]:
        return False
    return not reference.key or reference.key in {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
