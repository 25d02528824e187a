"""Whether a model fits its engine, once its header has been read, and the context it gets where nobody said one."""

from __future__ import annotations

from dataclasses import replace

from stoker.api.inspection import FitStatus, ModelStatus
from stoker.api.model_deployment import ModelDeployment
from stoker.api.resolved import ParsedSource, ResolvedModelDeployment
from stoker.desired.engine_pod import build_resolved_fit_request
from stoker.errors import Stalled
from stoker.models.fit import Fit, compute_fit, explain_misfit, largest_context
from stoker.models.inspected import facts_of


def known_model(
    deployment: ModelDeployment, source: ParsedSource, reported: list[ModelStatus], *, fresh: bool
) -> ModelStatus | None:
    """What is known of a source: what a pod has just read, or what status remembers.

    `fresh`: somebody asked by annotation to choose anew, so the memory does not count; the next pod reads again.
    """
    remembered = [deployment.status.model] if deployment.status.model and not fresh else []
    return next((model for model in (*reported, *remembered) if source.digest and model.source == source.digest), None)


def resolve_fit(resolved: ResolvedModelDeployment, model: ModelStatus, *, serving: bool) -> ResolvedModelDeployment:
    """Add the bill for the model.

    Without spec.contextLength, and where the trained length does not fit, the largest that does is chosen; but never for
    a model that serves, which would be restarted by it.
    """
    facts = facts_of(model)
    request = build_resolved_fit_request(resolved)
    fit = compute_fit(facts, request)
    unsaid = request.context_length is None and resolved.deployment.spec.fit_policy != "Ignore"
    length = largest_context(facts, request) if fit.fits is False and unsaid and not serving else 0
    if length:
        resolved = replace(resolved, chosen=resolved.chosen.model_copy(update={"context_length": length}))
        fit = compute_fit(facts, build_resolved_fit_request(resolved))
    misfit = explain_misfit(fit) if fit.fits is False else ""
    return replace(resolved, model=model, fit=_status(fit), misfit=misfit)


def check_fit(resolved: ResolvedModelDeployment) -> None:
    """Refuse what does not fit, where that is the policy."""
    if resolved.misfit and resolved.deployment.spec.fit_policy == "Enforce":
        name = resolved.deployment.metadata.name
        raise Stalled(
            "DoesNotFit",
            f"ModelDeployment {name} does not fit InferenceEngine {resolved.engine.metadata.name}: {resolved.misfit}",
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
