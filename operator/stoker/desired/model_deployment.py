"""ModelDeployment: from the object and its engine to Deployment, Service, ServiceAccount, NetworkPolicy and endpoint rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stoker.api.inference_engine import InferenceEngine
from stoker.api.inspection import ModelStatus
from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import OWNER_LABELS, RESOLVED_ANNOTATION, ROUTABLE_LABEL, config_map_name
from stoker.api.observed import ObservedNode
from stoker.api.resolved import ChosenValues, OperatorSettings, ResolvedModelDeployment
from stoker.desired.chosen import choose, write_chosen
from stoker.desired.engine_pod import (
    AGENT_PORT,
    COMPONENT,
    build_launch,
    build_pod_template,
    config_key,
    uses_claim_cache,
)
from stoker.desired.engine_request import adapter_claims, draft_claim, engine_request
from stoker.desired.fit import known_model, resolve_fit
from stoker.desired.node_memory import find_memory
from stoker.desired.objects import (
    NAMESPACE_NAME_LABEL,
    READ_ENDPOINTS,
    Object,
    build_rights,
    child,
    operator_peer,
    selector_labels,
)
from stoker.desired.publishing import check_deployment, check_pod_template
from stoker.desired.replicas import decide_replicas, most_replicas
from stoker.engines import EngineRequest, check_accelerator, check_request, engine_of
from stoker.errors import Stalled, Waiting
from stoker.models.source import parse_source
from stoker.scaling.schedule import check_schedules


@dataclass(frozen=True)
class Reference:
    """An object that the pods cannot start without; ``key`` is empty when any content will do."""

    kind: Literal["Secret", "ConfigMap", "PersistentVolumeClaim"]
    name: str
    key: str
    field: str
    """Where the user wrote it."""


def resolve_model_deployment(
    deployment: ModelDeployment,
    engine: InferenceEngine | None,
    settings: OperatorSettings,
    *,
    previous: ChosenValues | None,
    publishers: tuple[tuple[str, str], ...] = (),
    reported: list[ModelStatus] | None = None,
    serving: bool = False,
    nodes: Sequence[ObservedNode] = (),
    engine_reason: str | None = None,
    scaled: int | None = None,
    present: int | None = None,
) -> ResolvedModelDeployment:
    """Put together all that the children depend on, and refuse what cannot work.

    ``scaled`` and ``present`` are replicas: what the autoscaler asks for, and what was asked for last. ``engine_reason`` says why Stoker chose this engine, where the user named none.
    """
    if engine is None or engine.metadata.deletion_timestamp is not None:
        raise _engine_not_found(deployment)
    source = parse_source(deployment.spec.source)
    check_deployment(deployment, settings)
    if deployment.spec.autoscaling is not None:
        check_schedules(deployment.spec.autoscaling, f"ModelDeployment {deployment.metadata.name}")
    check_pod_template(engine.spec.pod_template is not None, f"InferenceEngine {engine.metadata.name}", settings)
    row = engine_of(engine.spec)
    accelerator = engine.spec.accelerator.vendor
    check_accelerator(row, EngineRequest("", vendor=accelerator, engine_name=engine.metadata.name))
    gpus = deployment.spec.gpus
    if gpus is None:
        product = (deployment.spec.tensor_parallel_size or 1) * (deployment.spec.pipeline_parallel_size or 1)
        gpus = 0 if engine.spec.accelerator.vendor == "None" else product
    chosen = choose(deployment, engine, source, settings, previous, engine_reason=engine_reason)
    if chosen.memory_bytes is None and not serving and (found := find_memory(deployment, engine, gpus, nodes)):
        chosen = chosen.model_copy(update={"memory_bytes": found[0], "memory_node": found[1]})
    resolved = ResolvedModelDeployment(
        deployment=deployment,
        engine=engine,
        source=source,
        chosen=chosen,
        gpus=gpus,
        replicas=decide_replicas(deployment, scaled, present),
        publishers=tuple(sorted(publishers)),
    )
    check_request(row, engine_request(resolved))
    _check_cache(resolved)
    fresh = previous is not None and previous.refresh != resolved.chosen.refresh
    model = known_model(deployment, source, reported or [], fresh=fresh)
    if model is None:
        return resolved
    return resolve_fit(resolved, model, settled=serving and resolved.chosen == previous)


def _engine_not_found(deployment: ModelDeployment) -> Stalled:
    name, namespace = deployment.metadata.name, deployment.metadata.namespace
    reference = deployment.spec.engine_ref
    if reference is None:
        return Stalled(
            "EngineNotFound",
            f"ModelDeployment {name} names no InferenceEngine, and there is none to choose in namespace {namespace}: create one",
        )
    return Stalled(
        "EngineNotFound",
        f"ModelDeployment {name} names InferenceEngine {reference.name}, which does not exist in namespace "
        f"{namespace}: create it, or correct spec.engineRef.name",
    )


def referenced_objects(resolved: ResolvedModelDeployment) -> tuple[Reference, ...]:
    """What has to exist before a pod can start: missing, it would be a pod that hangs in ContainerCreating."""
    spec, references = resolved.deployment.spec, []
    if spec.source.secret_ref:
        references.append(Reference("Secret", spec.source.secret_ref.name, "token", "spec.source.secretRef"))
    if spec.chat_template:
        template = spec.chat_template.config_map_ref
        references.append(Reference("ConfigMap", template.name, template.key, "spec.chatTemplate.configMapRef"))
    if resolved.source.claim:
        references.append(Reference("PersistentVolumeClaim", resolved.source.claim, "", "spec.source.uri"))
    references += [
        Reference("PersistentVolumeClaim", claim, "", "spec.adapters") for claim in adapter_claims(resolved).values()
    ]
    if draft_claim(resolved):
        references.append(
            Reference("PersistentVolumeClaim", draft_claim(resolved), "", "spec.speculativeDecoding.draft.uri")
        )
    engine = f"spec.env of InferenceEngine {resolved.engine.metadata.name}"
    references += _env_references(resolved.engine.spec.env, engine)
    references += _env_references(spec.env, "spec.env")
    references += _env_from_references(resolved.engine.spec.env_from, engine.replace("env", "envFrom", 1))
    return tuple(dict.fromkeys(references))


def missing_reference(deployment: ModelDeployment, reference: Reference) -> Waiting:
    """The error for an object that is not there; its coming cannot be watched, so it is looked for again."""
    reason = {"Secret": "SecretNotFound", "ConfigMap": "ConfigMapNotFound", "PersistentVolumeClaim": "ClaimNotFound"}
    key = f" with key {reference.key!r}" if reference.key else ""
    return Waiting(
        reason[reference.kind],
        f"ModelDeployment {deployment.metadata.name} needs {reference.kind} {reference.name}{key} in namespace "
        f"{deployment.metadata.namespace} ({reference.field}): create it; Stoker looks again every 15 seconds",
        retry_after=15.0,
    )


def build_children(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> list[Object]:
    """All children, in the order in which they are applied."""
    children = [
        _service_account(resolved.deployment),
        _network_policy(resolved, settings),
        _service(resolved.deployment),
        *_config_map(resolved),
        _deployment(resolved, settings),
    ]
    # A gateway in the model's own namespace has these rights by a Role of its own: two objects fewer for each model.
    elsewhere = [gateway for gateway in resolved.publishers if gateway[0] != resolved.deployment.metadata.namespace]
    if elsewhere:
        children[:0] = _endpoint_rights(resolved.deployment, elsewhere)
    return children


def _deployment(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    deployment, rollout = resolved.deployment, resolved.deployment.spec.rollout
    # A rollout may wait for a whole drain and then for a whole start before it can advance by one replica.
    at_least = rollout.drain_timeout_seconds + resolved.chosen.startup_deadline_seconds
    built = child(
        deployment,
        COMPONENT,
        "apps/v1",
        "Deployment",
        deployment.metadata.name,
        spec={
            "replicas": resolved.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": max(at_least, rollout.progress_deadline_seconds or 0),
            "selector": {"matchLabels": selector_labels(deployment, COMPONENT)},
            "strategy": _strategy(resolved),
            "template": build_pod_template(resolved, settings),
        },
    )
    # On the Deployment, not in its template: a new choice must not roll pods by the annotation alone.
    built["metadata"]["annotations"] = {RESOLVED_ANNOTATION: write_chosen(resolved.chosen)}
    return built


def _config_map(resolved: ResolvedModelDeployment) -> list[Object]:
    """Configuration files, for engines that are not told everything by arguments."""
    files = build_launch(resolved).files
    if not files:
        return []
    deployment = resolved.deployment
    data = {config_key(path): text for path, text in files.items()}
    return [child(deployment, COMPONENT, "v1", "ConfigMap", config_map_name(deployment.metadata.name), data=data)]


def _strategy(resolved: ResolvedModelDeployment) -> Object:
    chosen = resolved.deployment.spec.rollout.strategy
    # A surge replica needs a spare device and a cache that two pods can mount; where they do not exist it would hang.
    surge = not _is_exclusive_cache(resolved) and (chosen == "RollingUpdate" or resolved.gpus == 0)
    if chosen == "Recreate" or (chosen == "Auto" and not surge and _possible_replicas(resolved) <= 1):
        return {"type": "Recreate"}
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0} if surge else {"maxSurge": 0, "maxUnavailable": 1},
    }


def _is_exclusive_cache(resolved: ResolvedModelDeployment) -> bool:
    modes = resolved.engine.spec.cache.access_modes or ["ReadWriteOnce"]
    return uses_claim_cache(resolved) and "ReadWriteMany" not in modes


def _check_cache(resolved: ResolvedModelDeployment) -> None:
    possible = _possible_replicas(resolved)
    if possible > 1 and _is_exclusive_cache(resolved):
        engine = resolved.engine
        modes = ", ".join(engine.spec.cache.access_modes or ["ReadWriteOnce"])
        raise Stalled(
            "CacheNotShareable",
            f"ModelDeployment {resolved.deployment.metadata.name} may have {possible} replicas, but the cache claim of "
            f"InferenceEngine {engine.metadata.name} is {modes}: allow one replica only, or use an engine whose cache has "
            "accessModes [ReadWriteMany], or type EmptyDir",
        )


def _possible_replicas(resolved: ResolvedModelDeployment) -> int:
    """Not those of this moment: strategy and refusals must not come and go with the load."""
    return max(resolved.replicas, most_replicas(resolved.deployment))


def _service(deployment: ModelDeployment) -> Object:
    return child(
        deployment,
        COMPONENT,
        "v1",
        "Service",
        deployment.metadata.name,
        spec={
            # Headless: gateways choose among the endpoints themselves.
            "clusterIP": "None",
            "selector": {**selector_labels(deployment, COMPONENT), ROUTABLE_LABEL: "true"},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http"}],
        },
    )


def _service_account(deployment: ModelDeployment) -> Object:
    return child(
        deployment, COMPONENT, "v1", "ServiceAccount", deployment.metadata.name, automountServiceAccountToken=False
    )


def _network_policy(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    deployment = resolved.deployment
    gateways = [
        {
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: namespace}},
            "podSelector": {"matchLabels": {OWNER_LABELS["ApiGateway"]: name}},
        }
        for namespace, name in resolved.publishers
    ]
    ingress: list[Object] = [{"from": [operator_peer(settings)], "ports": [{"port": AGENT_PORT, "protocol": "TCP"}]}]
    if gateways:
        ingress.insert(
            0, {"from": gateways, "ports": [{"port": engine_of(resolved.engine.spec).port, "protocol": "TCP"}]}
        )
    return child(
        deployment,
        COMPONENT,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        deployment.metadata.name,
        spec={
            "podSelector": {"matchLabels": selector_labels(deployment, COMPONENT)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    )


def _endpoint_rights(deployment: ModelDeployment, gateways: list[tuple[str, str]]) -> list[Object]:
    """What gateways of other namespaces may see here; owned by the model, for owner references never cross namespaces."""
    name = f"{deployment.metadata.name}-endpoints"
    return build_rights(deployment, COMPONENT, name, [READ_ENDPOINTS], gateways)


def _env_references(env: list[dict[str, Any]] | None, field: str) -> list[Reference]:
    references = []
    for variable in env or []:
        origin = variable.get("valueFrom") or {}
        references += _required("Secret", origin.get("secretKeyRef"), field)
        references += _required("ConfigMap", origin.get("configMapKeyRef"), field)
    return references


def _env_from_references(env_from: list[dict[str, Any]] | None, field: str) -> list[Reference]:
    references = []
    for origin in env_from or []:
        references += _required("Secret", origin.get("secretRef"), field)
        references += _required("ConfigMap", origin.get("configMapRef"), field)
    return references


def _required(kind: Literal["Secret", "ConfigMap"], reference: object, field: str) -> list[Reference]:
    if not isinstance(reference, Mapping) or not reference.get("name") or reference.get("optional"):
        return []
    return [Reference(kind, str(reference["name"]), str(reference.get("key") or ""), field)]
