"""The pod template of a ModelDeployment: written once for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from stoker.api.names import (
    CONFIG_ANNOTATION,
    ROUTABLE_LABEL,
    SOURCE_TOKEN_FIELD,
    cache_claim_name,
    child_labels,
    config_map_name,
    short_digest,
)
from stoker.api.resolved import OperatorSettings, ResolvedModelDeployment
from stoker.desired.engine_key import agent_env, engine_arguments, engine_env, engine_mounts, engine_volumes
from stoker.desired.engine_request import (
    ADAPTERS_DIRECTORY,
    DRAFT_DIRECTORY,
    adapter_claims,
    container_resources,
    draft_claim,
    engine_request,
    engine_row,
)
from stoker.desired.fetch_container import (
    HUB_TOKEN_VARIABLE,
    PROGRESS_FILE,
    build_fetch_container,
    models_mount,
    mount,
)
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
from stoker.engines import Engine, Launch
from stoker.engines.base import CHAT_TEMPLATE_PATH

COMPONENT = "engine"
TEMPLATE_DIRECTORY, _, TEMPLATE_FILE = CHAT_TEMPLATE_PATH.rpartition("/")
AGENT_PORT = 9100

# What remains of the grace period after a drain that took all its time.
GRACE_MARGIN_SECONDS = 30
# After a failed probe nobody waits for a drain; the engine is not answering.
PROBE_GRACE_SECONDS = 10

_AGENT_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}}


def build_pod_template(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    """What the pods look like; anything that changes here restarts engines."""
    deployment, engine = resolved.deployment, resolved.engine
    labels = {**child_labels(deployment, COMPONENT), ROUTABLE_LABEL: "true"}
    annotations = {"kubectl.kubernetes.io/default-container": "engine"}
    launch = build_launch(resolved)
    if launch.files:
        annotations[CONFIG_ANNOTATION] = short_digest(compact_json(dict(launch.files)))
    template: Object = {
        "metadata": {"labels": labels, "annotations": annotations},
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
            "containers": [_engine_container(resolved, launch)],
            "volumes": _volumes(resolved, launch),
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


def build_launch(resolved: ResolvedModelDeployment) -> Launch:
    """Command, environment and files of the engine."""
    return engine_row(resolved).launch(engine_request(resolved))


def uses_claim_cache(resolved: ResolvedModelDeployment) -> bool:
    """Whether the pods share the engine's cache claim."""
    return resolved.source.cached and resolved.engine.spec.cache.type == "PersistentVolumeClaim"


def _init_containers(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> list[Object]:
    # The agent comes first: it tells the progress of the download that follows.
    containers = [_agent_container(resolved, settings)]
    if resolved.source.identity:
        containers.append(build_fetch_container(resolved, settings))
    return containers


def _agent_row(resolved: ResolvedModelDeployment) -> Object:
    """What the agent has to know of the engine; what an engine does not offer is left out."""
    engine = engine_row(resolved)
    ready, metrics = engine.ready.of(resolved.deployment.served_name), engine.metrics
    row = {
        "model": resolved.deployment.served_name,
        "engine": engine.type,
        "enginePort": engine.port,
        "healthPath": ready.path,
        "readyItems": ready.items,
        "readyKey": ready.key,
        "readyEquals": list(ready.equals),
        "readyDiffers": list(ready.differs),
        "metricsPath": metrics.path,
        "runningMetric": metrics.running,
        "waitingMetric": metrics.waiting,
        "promptTokensMetric": metrics.prompt_tokens,
        "completionTokensMetric": metrics.completion_tokens,
        "kvCacheUsedMetric": metrics.kv_cache_used,
        "timeToFirstTokenMetric": metrics.time_to_first_token,
        "interTokenLatencyMetric": metrics.inter_token_latency,
        "drainTimeoutSeconds": resolved.deployment.spec.rollout.drain_timeout_seconds,
        "progressFile": PROGRESS_FILE,
    }
    return {name: value for name, value in row.items() if value not in ("", [])}


def _agent_container(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    row = _agent_row(resolved)
    return {
        "name": "agent",
        "image": resolved.chosen.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["agent"],
        "restartPolicy": "Always",
        "env": [{"name": "STOKER_AGENT", "value": compact_json(row)}, *agent_env(resolved)],
        "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "livenessProbe": http_probe("/healthz", "agent", period=10, timeout=5, failures=6),
        "resources": _AGENT_RESOURCES,
        **container_defaults(),
        "volumeMounts": [mount("run", RUN_DIRECTORY), mount("tmp", "/tmp")],  # noqa: S108 - a path in the container
    }


def _engine_container(resolved: ResolvedModelDeployment, launch: Launch) -> Object:
    engine = engine_row(resolved)
    program, *arguments = _words(resolved, launch)
    deadline = resolved.chosen.startup_deadline_seconds
    # Every second while that is cheap, so that a ready model serves at once.
    period = max(1, ceil(deadline / 900))
    # A busy engine has been seen to answer /health after 2 s: a short timeout would take it out when it is needed most.
    startup = _ready_probe(resolved, period=period, timeout=5, failures=ceil(deadline / period))
    container: Object = {
        "name": "engine",
        "image": resolved.chosen.engine_image,
        "imagePullPolicy": resolved.engine.spec.image_pull_policy or "IfNotPresent",
        "command": [program],
        "args": arguments,
        "env": _env(resolved, launch),
        "ports": [{"name": "http", "containerPort": engine.port, "protocol": "TCP"}],
        "startupProbe": {**startup, "terminationGracePeriodSeconds": PROBE_GRACE_SECONDS},
        "livenessProbe": {**_live_probe(engine), "terminationGracePeriodSeconds": PROBE_GRACE_SECONDS},
        "readinessProbe": _ready_probe(resolved, period=2, timeout=5, failures=3),
        # The agent answers when the engine is idle; SIGTERM comes after that.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": AGENT_PORT}}},
        "resources": container_resources(resolved),
        **container_defaults(root=engine.security.root, read_only_root=engine.security.read_only_root),
        "volumeMounts": _engine_mounts(resolved, launch),
    }
    if resolved.engine.spec.env_from:
        container["envFrom"] = resolved.engine.spec.env_from
    return container


def _words(resolved: ResolvedModelDeployment, launch: Launch) -> list[str]:
    """The command line, safe from Kubernetes' replacements; whoever writes a custom command may want them."""
    wanted = len(resolved.engine.spec.custom.command) if resolved.engine.spec.custom else 0
    words = [word if number < wanted else _literal(word) for number, word in enumerate(launch.command)]
    return words + engine_arguments(resolved, engine_row(resolved))


def _ready_probe(resolved: ResolvedModelDeployment, *, period: int, timeout: int, failures: int) -> Object:
    engine = engine_row(resolved)
    if engine.ready.key:
        # The kubelet sees the status only; the agent reads the body.
        return http_probe("/ready", AGENT_PORT, period=period, timeout=timeout, failures=failures)
    path = engine.ready.of(resolved.deployment.served_name).path
    return http_probe(path, "http", period=period, timeout=timeout, failures=failures)


def _live_probe(engine: Engine) -> Object:
    if engine.live_path:
        return http_probe(engine.live_path, "http", period=10, timeout=10, failures=6)
    return {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6}


def _engine_mounts(resolved: ResolvedModelDeployment, launch: Launch) -> list[Object]:
    # Engines that fetch for themselves write there.
    read_only = {} if resolved.source.fetched_by_engine else {"readOnly": True}
    mounts = [mount("models", models_mount(resolved), **read_only), mount("tmp", "/tmp")]  # noqa: S108
    if _shared_memory(resolved):
        mounts.append(mount("shm", "/dev/shm"))  # noqa: S108
    if resolved.deployment.spec.chat_template:
        path = engine_row(resolved).chat_template_path
        if path == CHAT_TEMPLATE_PATH:
            mounts.append(mount("chat-template", TEMPLATE_DIRECTORY, readOnly=True))
        else:
            mounts.append(mount("chat-template", path, readOnly=True, subPath=TEMPLATE_FILE))
    mounts += engine_mounts(resolved, engine_row(resolved))
    mounts += [mount("config", path, readOnly=True, subPath=config_key(path)) for path in launch.files]
    mounts += [mount(_volume_name(path), path) for path in launch.writable]
    mounts += [
        mount(f"adapter-{number}", f"{ADAPTERS_DIRECTORY}/{number}", readOnly=True)
        for number in adapter_claims(resolved)
    ]
    if draft_claim(resolved):
        mounts.append(mount("draft", DRAFT_DIRECTORY, readOnly=True))
    return mounts


def config_key(path: str) -> str:
    """Key of a configuration file in the ConfigMap."""
    return path.rpartition("/")[2]


def _volume_name(path: str) -> str:
    return path.strip("/").replace("/", "-")


def _volumes(resolved: ResolvedModelDeployment, launch: Launch) -> list[Object]:
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
    volumes += engine_volumes(resolved, engine_row(resolved))
    if launch.files:
        volumes.append({"name": "config", "configMap": {"name": config_map_name(resolved.deployment.metadata.name)}})
    volumes += [{"name": _volume_name(path), "emptyDir": {}} for path in launch.writable]
    volumes += [
        {"name": f"adapter-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for number, claim in adapter_claims(resolved).items()
    ]
    if draft_claim(resolved):
        volumes.append(
            {"name": "draft", "persistentVolumeClaim": {"claimName": draft_claim(resolved), "readOnly": True}}
        )
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
    needed = engine_row(resolved).shared_memory or ("1Gi" if resolved.gpus > 1 else None)
    return resolved.engine.spec.shared_memory_size or needed


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


def _env(resolved: ResolvedModelDeployment, launch: Launch) -> list[Object]:
    # The root file system is read-only; programs that want a home find a place to write.
    variables: list[Mapping[str, Any]] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108
    variables += [{"name": name, "value": _literal(value)} for name, value in launch.env.items()]
    secret = resolved.deployment.spec.source.secret_ref
    if secret and resolved.source.fetched_by_engine:
        token = {"name": secret.name, "key": SOURCE_TOKEN_FIELD}
        variables.append({"name": HUB_TOKEN_VARIABLE, "valueFrom": {"secretKeyRef": token}})
    variables += engine_env(resolved, engine_row(resolved))
    variables += resolved.engine.spec.env or []
    variables += resolved.deployment.spec.env or []
    # A later variable of the same name wins, at the place of the first: references to it keep working.
    return [dict(variable) for variable in {str(variable.get("name")): variable for variable in variables}.values()]


def _literal(argument: str) -> str:
    """Kubernetes replaces $(NAME) in arguments, past all checks of flags; $$ stands for a plain dollar sign."""
    return argument.replace("$", "$$")
