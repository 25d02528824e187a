"""Whether a model fits its engine, once its header has been read, and the context it gets where nobody said one."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from stoker.api.inspection import FitStatus, ModelStatus
from stoker.api.model_deployment import ModelDeployment
from stoker.api.resolved import ParsedSource, ResolvedModelDeployment
from stoker.desired.engine_request import build_resolved_fit_request, engine_request, engine_row, memory_limit
from stoker.engines.checks import flag_name
from stoker.errors import Stalled
from stoker.models.fit import MINIMUM_CONTEXT, Fit, compute_fit, explain_misfit, largest_context
from stoker.models.inspected import facts_of


def known_model(
    deployment: ModelDeployment, source: ParsedSource, reported: list[ModelStatus], *, fresh: bool
) -> ModelStatus | None:
    """What is known of a source: what a pod has just read, or what status remembers.

    `fresh`: somebody asked by annotation to choose anew, so the memory does not count; the next pod reads again.
    """
    remembered = [deployment.status.model] if deployment.status.model and not fresh else []
    return next(
        (model for model in (*reported, *remembered) if source.identity and model.source == source.identity), None
    )


def resolve_fit(resolved: ResolvedModelDeployment, model: ModelStatus, *, settled: bool) -> ResolvedModelDeployment:
    """Add the bill for the model, and choose by its size what nobody has said.

    That is the context, where the trained length does not fit, and the startup deadline. Never for what is settled: a
    model that serves would be restarted by it.
    """
    facts = facts_of(model)
    if not settled and resolved.engine.spec.startup_deadline_seconds is None:
        deadline = max(resolved.chosen.startup_deadline_seconds, startup_deadline(facts.weights_bytes))
        resolved = replace(resolved, chosen=resolved.chosen.model_copy(update={"startup_deadline_seconds": deadline}))
    request = build_resolved_fit_request(resolved)
    fit = compute_fit(facts, request)
    unsaid = request.context_length is None and resolved.deployment.spec.fit_policy != "Ignore"
    # Some engines would take a small one without a word, so even what fits has to be told.
    needed = bool(engine_row(resolved).needs_context_length)
    length = largest_context(facts, request) if (needed or fit.fits is False) and unsaid and not settled else 0
    if needed and unsaid and not settled and not length and resolved.deployment.spec.fit_policy == "Warn":
        length = min(facts.context_length or MINIMUM_CONTEXT, MINIMUM_CONTEXT)
    if length:
        resolved = replace(resolved, chosen=resolved.chosen.model_copy(update={"context_length": length}))
        fit = compute_fit(facts, build_resolved_fit_request(resolved))
    misfit = explain_misfit(fit) + _whose_memory(resolved) if fit.fits is False else ""
    return replace(resolved, model=model, fit=_status(fit), misfit=misfit)


def _whose_memory(resolved: ResolvedModelDeployment) -> str:
    chosen, stated = resolved.chosen, resolved.engine.spec.accelerator.memory
    if chosen.memory_node is None or (resolved.gpus and stated is not None):
        return ""
    if resolved.gpus:
        return f". Of the nodes that it may run on, {chosen.memory_node} has the smallest devices: nodeSelector leaves nodes out"
    return "" if memory_limit(resolved) else f". {chosen.memory_node} is the largest node that it may run on"


def startup_deadline(weights_bytes: int) -> int:
    """Five minutes and 20 s for each GiB: a slow network volume reads some 50 MiB in a second."""
    return min(86400, 300 + 20 * ceil(weights_bytes / 2**30))


def check_fit(resolved: ResolvedModelDeployment) -> None:
    """Refuse what does not fit, or could not answer, where that is the policy."""
    if resolved.deployment.spec.fit_policy == "Enforce" and resolved.replicas > 0:
        _check_pooling(resolved)
    if resolved.misfit and resolved.replicas > 0 and resolved.deployment.spec.fit_policy == "Enforce":
        name = resolved.deployment.metadata.name
        raise Stalled(
            "DoesNotFit",
            f"ModelDeployment {name} does not fit InferenceEngine {resolved.engine.metadata.name}: {resolved.misfit}",
        )


def _check_pooling(resolved: ResolvedModelDeployment) -> None:
    """llama.cpp answers /v1/embeddings with an error where nobody has said how tokens become one embedding."""
    model, spec = resolved.model, resolved.deployment.spec
    request = engine_request(resolved)
    if (
        model is None
        or spec.task != "Embedding"
        or resolved.engine.spec.type != "LlamaCpp"
        or model.pooling not in ("", "none")
    ):
        return
    said = any(flag_name(word) == "--pooling" for word in request.args)
    if not said and "LLAMA_ARG_POOLING" not in (*request.engine_env, *request.deployment_env):
        raise Stalled(
            "PoolingUnknown",
            f"ModelDeployment {resolved.deployment.metadata.name} has task Embedding, but its file does not say how the tokens of a text "
            "become one embedding, as files of embedding models do: take one of those, or set spec.args to [--pooling, mean]",
        )


def _status(fit: Fit) -> FitStatus:
    return FitStatus(
        required_bytes=fit.required_bytes,
        available_bytes=fit.available_bytes,
        weights_bytes=fit.weights_bytes,
        kv_bytes=fit.kv_bytes,
        overhead_bytes=fit.overhead_bytes,
        context_length=fit.context_length,
        slots=fit.slots,
    )
