"""Reconcile an InferenceEngine: its cache claim, and how many models run on it."""

from __future__ import annotations

from stoker.api import InferenceEngine
from stoker.cluster.own import OwnObject
from stoker.desired.chosen import engine_image
from stoker.desired.inference_engine import build_children, check_engine
from stoker.errors import StokerError
from stoker.reconcile.context import Context
from stoker.reconcile.report import report, retry_after
from stoker.status.inference_engine import compute_inference_engine_status


async def reconcile_inference_engine(context: Context, own: OwnObject, engine: InferenceEngine) -> float | None:
    """One pass; says when to look again."""
    problem: StokerError | None = None
    now = context.now()
    image: str | None = None
    try:
        check_engine(engine, context.settings)
        image = engine_image(engine)
        children = build_children(engine, context.settings)
        await context.children.apply_all(engine, children)
        await context.children.prune(engine, children)
    except StokerError as error:
        problem = error
    status = compute_inference_engine_status(
        engine, image=image, models=len(context.cache.models_on_engine(engine.key)), problem=problem, now=now
    )
    await report(context, own, status)
    return retry_after(problem, status.conditions, now)
