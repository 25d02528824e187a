"""Which gateway publishes which model, and who keeps a name that two models want."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from stoker.api.api_gateway import ApiGateway
from stoker.api.base import NamespaceSelection
from stoker.api.model_deployment import ModelDeployment
from stoker.api.resolved import OperatorSettings, PublishedModel
from stoker.desired.label_selectors import check_selector, matches, selects_namespace
from stoker.desired.replicas import is_stopped
from stoker.errors import Stalled

Key = tuple[str, str]
"""(namespace, name)."""
NamespaceLabels = Mapping[str, Mapping[str, str]]

_LAST = datetime.max.replace(tzinfo=UTC)


def check_gateway(gateway: ApiGateway, settings: OperatorSettings) -> None:
    """Refuse a selection that this installation cannot carry out, and a podTemplate where the admin forbids it."""
    where = f"ApiGateway {gateway.metadata.name}"
    check_selector(gateway.spec.models.selector, f"{where}: spec.models.selector")
    _check_namespaces(gateway.spec.models.namespaces, f"{where}: spec.models.namespaces", settings)
    check_pod_template(gateway.spec.pod_template is not None, where, settings)


def check_deployment(deployment: ModelDeployment, settings: OperatorSettings) -> None:
    """The same for the ModelDeployment's side."""
    _check_namespaces(deployment.spec.gateways, f"ModelDeployment {deployment.metadata.name}: spec.gateways", settings)


def check_pod_template(given: bool, where: str, settings: OperatorSettings) -> None:
    """Who may write a podTemplate may run any pod that Pod Security admits, so an admin can switch it off."""
    if given and not settings.allow_pod_template:
        raise Stalled(
            "PodTemplateForbidden",
            f"{where}: spec.podTemplate is switched off in this installation: remove it, or ask the admin to set the "
            "chart value engine.allowPodTemplate",
        )


def publishes(gateway: ApiGateway, deployment: ModelDeployment, namespace_labels: NamespaceLabels | None) -> bool:
    """Whether both sides agree; None for the labels means that namespaces may not be read."""
    theirs, ours = gateway.spec.models, deployment.spec.gateways
    gateway_namespace, model_namespace = gateway.metadata.namespace, deployment.metadata.namespace
    return (
        deployment.metadata.deletion_timestamp is None
        and selects_namespace(theirs.namespaces, gateway_namespace, model_namespace, namespace_labels)
        and selects_namespace(ours, model_namespace, gateway_namespace, namespace_labels)
        and matches(theirs.selector, deployment.metadata.labels)
    )


def published_models(
    gateway: ApiGateway, deployments: Iterable[ModelDeployment], namespace_labels: NamespaceLabels | None
) -> tuple[tuple[PublishedModel, ...], dict[Key, str]]:
    """The models of a gateway, by name; and for each that finds its name taken, who has it and what to do.

    The oldest keeps a name, so that nobody can take over a model's traffic by making another of its name.
    """
    holders: dict[str, ModelDeployment] = {}
    published: list[PublishedModel] = []
    refused: dict[Key, str] = {}
    for deployment in sorted((d for d in deployments if publishes(gateway, d, namespace_labels)), key=_age):
        names = deployment.served_names
        taken = next((name for name in names if name in holders), None)
        if taken is not None:
            holder = holders[taken].metadata
            refused[deployment.key] = (
                f"ApiGateway {gateway.metadata.namespace}/{gateway.metadata.name} already serves the name {taken!r} for the older "
                f"ModelDeployment {holder.namespace}/{holder.name}: change spec.servedModelName, spec.aliases or spec.adapters of one of them"
            )
            continue
        holders.update(dict.fromkeys(names, deployment))
        published.append(PublishedModel(deployment=deployment, stopped=is_stopped(deployment)))
    return tuple(sorted(published, key=lambda model: (model.deployment.served_name, model.deployment.key))), refused


def _age(deployment: ModelDeployment) -> tuple[datetime, Key]:
    return deployment.metadata.creation_timestamp or _LAST, deployment.key


def _check_namespaces(selection: NamespaceSelection, where: str, settings: OperatorSettings) -> None:
    check_selector(selection.selector, f"{where}.selector")
    if selection.from_ != "Same" and not settings.cluster_scoped:
        raise Stalled(
            "NotPermitted",
            f"{where}.from: {selection.from_} needs the right to read namespaces, which this installation does not have "
            "(it watches single namespaces): set it to Same, or ask the admin to install Stoker cluster-wide",
        )
