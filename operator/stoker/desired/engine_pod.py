"""The pod template of a ModelDeployment: written once for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import ceil
from typing import Any

from stoker.api.names import ROUTABLE_LABEL, SOURCE_TOKEN_FIELD, cache_claim_name, child_labels
from stoker.api.resolved import OperatorSettings, ResolvedModelDeployment
from stoker.desired.merge import merge, merge_pod_template
from stoker.desired.objects import (
    RUN_DIRECTORY,
    Object,
    compact_json,
    container_defaults,
    http_probe,
    pod_security,
    pull_secrets,
    selector_labels,
)
from stoker.engines import ENGINES, EngineRequest
from stoker.engines.accelerators import device_resource
from stoker.engines.memory import build_fit_request
from stoker.errors import Stalled
from stoker.models.fit import FitRequest
from stoker.models.quantity import parse_quantity
from stoker.models.source import file_urls

COMPONENT = "engine"
MODELS_DIRECTORY = "/models"
TEMPLATE_DIRECTORY = "/etc/stoker/chat-template"
TEMPLATE_FILE = "chat-template.jinja"
PROGRESS_FILE = f"{RUN_DIRECTORY}/progress.json"
AGENT_PORT = 9100

# What remains of the grace period after a drain that took all its time.
GRACE_MARGIN_SECONDS = 30
# After a failed probe nobody waits for a drain; the engine is not answering.
PROBE_GRACE_SECONDS = 10

_AGENT_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}}
_FETCH_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def build_pod_template(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    """What the pods look like; anything that changes here restarts engines."""
    deployment, engine = resolved.deployment, resolved.engine
    labels = {**child_labels(deployment, COMPONENT), ROUTABLE_LABEL: "true"}
    template: Object = {
        "metadata": {"labels": labels, "annotations": {"kubectl.kubernetes.io/default-container": "engine"}},
        "spec": {
            "serviceAccountName": deployment.metadata.name,
            "automountServiceAccountToken": False,
            # A Service named "llama" would otherwise become variables that engines read as their own.
            "enableServiceLinks": False,
            # PID 1 of a container ignores SIGTERM until it has a handler: an engine that still loads, or a process that has
            # just begun, would hold the pod for the whole grace period. Here the pause container is PID 1.
            "shareProcessNamespace": True,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": deployment.spec.rollout.drain_timeout_seconds + GRACE_MARGIN_SECONDS,
            "initContainers": _init_containers(resolved, settings),
            "containers": [_engine_container(resolved)],
            "volumes": _volumes(resolved),
            **_placement(resolved),
        },
    }
    secrets = pull_secrets(settings, *(reference.name for reference in engine.spec.image_pull_secrets or []))
    if secrets:
        template["spec"]["imagePullSecrets"] = secrets
    if engine.spec.pod_template is not None:
        template = merge_pod_template(template, engine.spec.pod_template, f"InferenceEngine {engine.metadata.name}")
        template["metadata"] = merge(template.get("metadata", {}), {"labels": labels})
    return template


def engine_request(resolved: ResolvedModelDeployment) -> EngineRequest:
    """The engine's view of a ModelDeployment."""
    deployment, engine = resolved.deployment, resolved.engine
    return EngineRequest(
        served_name=deployment.served_name,
        aliases=tuple(deployment.spec.aliases),
        model_path=model_path(resolved),
        task=deployment.spec.task,
        context_length=resolved.chosen.context_length,
        slots=deployment.spec.max_concurrent_requests,
        vendor=engine.spec.accelerator.vendor,
        gpus=resolved.gpus,
        cpu_limit=_limit(resolved, "cpu"),
        memory_limit=_limit(resolved, "memory"),
        chat_template_path=f"{TEMPLATE_DIRECTORY}/{TEMPLATE_FILE}" if deployment.spec.chat_template else None,
        engine_name=engine.metadata.name,
        engine_args=tuple(engine.spec.args),
        engine_env=_env_names(engine.spec.env),
        deployment_name=deployment.metadata.name,
        deployment_args=tuple(deployment.spec.args),
        deployment_env=_env_names(deployment.spec.env),
    )


def build_resolved_fit_request(resolved: ResolvedModelDeployment) -> FitRequest:
    """How the model is to be run, as far as memory depends on it."""
    memory = resolved.engine.spec.accelerator.memory
    return build_fit_request(
        ENGINES[resolved.engine.spec.type],
        engine_request(resolved),
        parse_quantity(memory) if memory is not None else None,
    )


def model_path(resolved: ResolvedModelDeployment) -> str:
    """Path of the file that the engine opens, inside its container."""
    source = resolved.source
    # The node's directory is the mount itself; a claim is mounted whole.
    folder = {"pvc": source.path, "file": ""}.get(source.scheme, source.digest)
    return "/".join(part for part in (MODELS_DIRECTORY, folder, source.files[0]) if part)


def uses_claim_cache(resolved: ResolvedModelDeployment) -> bool:
    """Whether the pods share the engine's cache claim."""
    return resolved.source.downloaded and resolved.engine.spec.cache.type == "PersistentVolumeClaim"


def _init_containers(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> list[Object]:
    # The agent comes first: it tells the progress of the download that follows.
    containers = [_agent_container(resolved, settings)]
    if resolved.source.downloaded:
        containers.append(_fetch_container(resolved, settings))
    return containers


def _agent_container(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    engine = ENGINES[resolved.engine.spec.type]
    row = {
        "model": resolved.deployment.served_name,
        "engine": engine.type,
        "enginePort": engine.port,
        "healthPath": engine.health_path,
        "metricsPath": engine.metrics_path,
        "runningMetric": engine.running_metric,
        "waitingMetric": engine.waiting_metric,
        "promptTokensMetric": engine.prompt_tokens_metric,
        "completionTokensMetric": engine.completion_tokens_metric,
        "drainTimeoutSeconds": resolved.deployment.spec.rollout.drain_timeout_seconds,
        "progressFile": PROGRESS_FILE,
    }
    return {
        "name": "agent",
        "image": resolved.chosen.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["agent"],
        "restartPolicy": "Always",
        "env": [{"name": "STOKER_AGENT", "value": compact_json(row)}],
        "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "livenessProbe": http_probe("/healthz", "agent", period=10, timeout=5, failures=6),
        "resources": _AGENT_RESOURCES,
        **container_defaults(),
        "volumeMounts": [_mount("run", RUN_DIRECTORY), _mount("tmp", "/tmp")],  # noqa: S108 - a path in the container
    }


def _fetch_container(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    source, spec = resolved.source, resolved.deployment.spec.source
    checksums = spec.sha256 or {}
    files = [
        {"name": name, "url": url, **({"sha256": checksums[name]} if name in checksums else {})}
        for name, url in zip(source.files, file_urls(source), strict=True)
    ]
    order = {
        "digest": source.digest,
        "cache": MODELS_DIRECTORY,
        "files": files,
        "progressFile": PROGRESS_FILE,
        "fit": build_resolved_fit_request(resolved).to_json(),
        "fitPolicy": resolved.deployment.spec.fit_policy,
    }
    env: list[Object] = [{"name": "STOKER_FETCH", "value": compact_json(order)}]
    if spec.secret_ref:
        token = {"name": spec.secret_ref.name, "key": SOURCE_TOKEN_FIELD}
        env.append({"name": "STOKER_FETCH_TOKEN", "valueFrom": {"secretKeyRef": token}})
    return {
        "name": "fetch",
        "image": resolved.chosen.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["fetch"],
        "env": env,
        "resources": _FETCH_RESOURCES,
        **container_defaults(),
        "volumeMounts": [_mount("models", MODELS_DIRECTORY), _mount("run", RUN_DIRECTORY), _mount("tmp", "/tmp")],  # noqa: S108
    }


def _engine_container(resolved: ResolvedModelDeployment) -> Object:
    engine = ENGINES[resolved.engine.spec.type]
    program, *arguments = engine.command(engine_request(resolved))
    deadline = resolved.chosen.startup_deadline_seconds
    # Every second while that is cheap, so that a ready model serves at once.
    period = max(1, ceil(deadline / 900))
    # A busy engine has been seen to answer /health after 2 s: a short timeout would take it out when it is needed most.
    startup = http_probe(engine.health_path, "http", period=period, timeout=5, failures=ceil(deadline / period))
    liveness = http_probe(engine.health_path, "http", period=10, timeout=10, failures=6)
    container: Object = {
        "name": "engine",
        "image": resolved.chosen.engine_image,
        "imagePullPolicy": resolved.engine.spec.image_pull_policy or "IfNotPresent",
        "command": [program],
        "args": [_literal(argument) for argument in arguments],
        "env": _env(resolved),
        "ports": [{"name": "http", "containerPort": engine.port, "protocol": "TCP"}],
        "startupProbe": {**startup, "terminationGracePeriodSeconds": PROBE_GRACE_SECONDS},
        "livenessProbe": {**liveness, "terminationGracePeriodSeconds": PROBE_GRACE_SECONDS},
        "readinessProbe": http_probe(engine.health_path, "http", period=2, timeout=5, failures=3),
        # The agent answers when the engine is idle; SIGTERM comes after that.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": AGENT_PORT}}},
        "resources": _resources(resolved),
        **container_defaults(),
        "volumeMounts": _engine_mounts(resolved),
    }
    if resolved.engine.spec.env_from:
        container["envFrom"] = resolved.engine.spec.env_from
    return container


def _engine_mounts(resolved: ResolvedModelDeployment) -> list[Object]:
    mounts = [_mount("models", MODELS_DIRECTORY, readOnly=True), _mount("tmp", "/tmp")]  # noqa: S108
    if _shared_memory(resolved):
        mounts.append(_mount("shm", "/dev/shm"))  # noqa: S108
    if resolved.deployment.spec.chat_template:
        mounts.append(_mount("chat-template", TEMPLATE_DIRECTORY, readOnly=True))
    return mounts


def _volumes(resolved: ResolvedModelDeployment) -> list[Object]:
    volumes: list[Object] = [
        {"name": "models", **_models_volume(resolved)},
        {"name": "run", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    shared_memory = _shared_memory(resolved)
    if shared_memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}})
    template = resolved.deployment.spec.chat_template
    if template:
        reference = template.config_map_ref
        items = [{"key": reference.key, "path": TEMPLATE_FILE}]
        volumes.append({"name": "chat-template", "configMap": {"name": reference.name, "items": items}})
    return volumes


def _models_volume(resolved: ResolvedModelDeployment) -> Object:
    source, cache = resolved.source, resolved.engine.spec.cache
    if source.scheme == "pvc":
        return {"persistentVolumeClaim": {"claimName": source.claim, "readOnly": True}}
    if source.scheme == "file":
        # "Directory": a wrong path is an error that names it, not an empty folder that the kubelet makes.
        return {"hostPath": {"path": source.path, "type": "Directory"}}
    if cache.type == "PersistentVolumeClaim":
        return {"persistentVolumeClaim": {"claimName": cache_claim_name(resolved.engine.metadata.name)}}
    if cache.type == "HostPath":
        return {"hostPath": {"path": cache.path, "type": "Directory"}}
    return {"emptyDir": {"sizeLimit": cache.size} if cache.size else {}}


def _shared_memory(resolved: ResolvedModelDeployment) -> str | None:
    return resolved.engine.spec.shared_memory_size or ("1Gi" if resolved.gpus > 1 else None)


def _placement(resolved: ResolvedModelDeployment) -> Object:
    """Where pods may run; only what was asked for, so that nothing is owned without need."""
    engine, deployment = resolved.engine.spec, resolved.deployment.spec
    selector = {"matchLabels": selector_labels(resolved.deployment, COMPONENT)}
    tolerations = [*(engine.tolerations or [])]
    tolerations += [toleration for toleration in deployment.tolerations or [] if toleration not in tolerations]
    spread = [{"labelSelector": selector, **constraint} for constraint in engine.topology_spread_constraints or []]
    fields = {
        "nodeSelector": {**(engine.node_selector or {}), **(deployment.node_selector or {})},
        "tolerations": tolerations,
        "affinity": deployment.affinity if deployment.affinity is not None else engine.affinity,
        "topologySpreadConstraints": spread,
        "runtimeClassName": engine.runtime_class_name,
        "priorityClassName": engine.priority_class_name,
        "schedulerName": engine.scheduler_name,
    }
    return {field: value for field, value in fields.items() if value}


def _resources(resolved: ResolvedModelDeployment) -> Object:
    """The engine's resources under the model's, and the devices."""
    resources = merge(resolved.engine.spec.resources or {}, resolved.deployment.spec.resources or {})
    device = device_resource(resolved.engine.spec.accelerator)
    if device and resolved.gpus:
        # Kubernetes takes the request of an extended resource from its limit.
        resources = merge(resources, {"limits": {device: str(resolved.gpus)}, "requests": {device: None}})
    return {key: value for key, value in resources.items() if value}


def _limit(resolved: ResolvedModelDeployment, name: str) -> Decimal | None:
    limits = _resources(resolved).get("limits") or {}
    try:
        return parse_quantity(limits[name]) if name in limits else None
    except ValueError as error:
        deployment = resolved.deployment.metadata.name
        raise Stalled("InvalidSpec", f"ModelDeployment {deployment}: resources.limits.{name}: {error}") from error


def _env(resolved: ResolvedModelDeployment) -> list[Object]:
    # The root file system is read-only; programs that want a home find a place to write.
    variables: list[Mapping[str, Any]] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108
    variables += resolved.engine.spec.env or []
    variables += resolved.deployment.spec.env or []
    # A later variable of the same name wins, at the place of the first: references to it keep working.
    return [dict(variable) for variable in {str(variable.get("name")): variable for variable in variables}.values()]


def _env_names(env: list[dict[str, Any]] | None) -> tuple[str, ...]:
    return tuple(str(variable.get("name")) for variable in env or [])


def _literal(argument: str) -> str:
    """Kubernetes replaces $(NAME) in arguments, past all checks of flags; $$ stands for a plain dollar sign."""
    return argument.replace("$", "$$")


def _mount(name: str, path: str, **more: Any) -> Object:
    return {"name": name, "mountPath": path, **more}
