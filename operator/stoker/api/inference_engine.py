"""InferenceEngine: which engine, and how it runs in this namespace."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.api.base import (
    ApiModel,
    Cel,
    Conditions,
    KindInfo,
    KubernetesList,
    KubernetesObject,
    LocalObjectReference,
    PrinterColumn,
    Quantity,
    Resource,
    StatusModel,
)

EngineType = Literal[
    "VLLM",
    "LlamaCpp",
    "Ollama",
    "TabbyAPI",
    "Aphrodite",
    "LocalAI",
    "TextGenerationWebUI",
    "LMStudio",
    "SGLang",
    "Custom",
]
Vendor = Literal["NVIDIA", "AMD", "Intel", "None"]
Arguments = Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=128)]


class Accelerator(ApiModel):
    """The devices this engine computes on."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.vendor != 'None' || !has(self.resourceName)",
            "accelerator.resourceName needs a vendor: set vendor to NVIDIA, AMD or Intel, or remove resourceName",
        ),
        Cel(
            "self.vendor != 'None' || !has(self.memory)",
            "accelerator.memory needs a vendor: on the CPU resources.limits.memory says how much there is",
        ),
        Cel(
            "self.vendor == 'NVIDIA' || !has(self.computeCapability)",
            "accelerator.computeCapability belongs to vendor NVIDIA",
        ),
    )

    vendor: Vendor = "NVIDIA"
    """NVIDIA, AMD, Intel, or None for an engine that computes on the CPU. Chooses the default image."""
    resource_name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] | None = None
    """Extended resource that one device is requested by, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb. Default: nvidia.com/gpu, amd.com/gpu or gpu.intel.com/xe, by vendor."""

    memory: Quantity | None = None
    """Memory of one device, such as 24Gi. Default: what the labels of the nodes, or the drivers of claimed devices, say. With it, models that do not fit are refused before they are downloaded, and the context is chosen to fit."""
    compute_capability: Annotated[str, Field(max_length=5, pattern=r"^[0-9]{1,2}\.[0-9]$")] | None = None
    """CUDA compute capability of the devices, such as "8.6". With it, formats that the devices are too old for are refused before a pod exists."""


class CustomEngine(ApiModel):
    """An inference server that Stoker does not know; it must speak the OpenAI API under /v1."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.metricsPath) == (has(self.runningMetric) && has(self.waitingMetric)) && "
            "has(self.runningMetric) == has(self.waitingMetric)",
            "custom.metricsPath, runningMetric and waitingMetric are given together, or none of them",
        ),
    )

    command: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=128)]
    """What is run. The environment has STOKER_MODEL_PATH (file or folder) or STOKER_MODEL_REPOSITORY and STOKER_MODEL_REVISION (on Hugging Face), STOKER_SERVED_MODEL_NAME, STOKER_PORT, STOKER_MAX_CONCURRENT_REQUESTS, and STOKER_CONTEXT_LENGTH and STOKER_CHAT_TEMPLATE where the model has them; $(NAME) in an argument is replaced by Kubernetes."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 8080
    """Port that it listens on, on all addresses of the pod."""
    health_path: Annotated[str, Field(max_length=1024, pattern=r"^/[!-~]*$")] = "/health"
    """Path that answers 200 only when the model is loaded."""
    metrics_path: Annotated[str, Field(max_length=1024, pattern=r"^/[!-~]*$")] | None = None
    """Path of its Prometheus metrics. Without it a replica that goes away waits until nobody is connected."""
    running_metric: Annotated[str, Field(max_length=256)] | None = None
    """Series with the number of requests worked on."""
    waiting_metric: Annotated[str, Field(max_length=256)] | None = None
    """Series with the number of requests that wait."""


class Cache(ApiModel):
    """Where downloaded weights are kept."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel("(self.type == 'HostPath') == has(self.path)", "cache.path is given exactly when cache.type is HostPath"),
        Cel(
            "self.type == 'PersistentVolumeClaim' || !(has(self.storageClassName) || has(self.accessModes))",
            "cache.storageClassName and cache.accessModes belong to cache.type PersistentVolumeClaim",
        ),
        Cel(
            "self.type != 'PersistentVolumeClaim' || has(self.size)",
            "cache.size is required with cache.type PersistentVolumeClaim",
        ),
        Cel(
            "!(self.type == 'PersistentVolumeClaim' && oldSelf.type == 'PersistentVolumeClaim') || "
            "(has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))",
            "cache.storageClassName cannot be changed: delete the engine's cache claim and make a new InferenceEngine",
        ),
        Cel(
            "!(self.type == 'PersistentVolumeClaim' && oldSelf.type == 'PersistentVolumeClaim') || "
            "(has(self.accessModes) == has(oldSelf.accessModes) && "
            "(!has(self.accessModes) || self.accessModes == oldSelf.accessModes))",
            "cache.accessModes cannot be changed: delete the engine's cache claim and make a new InferenceEngine",
        ),
    )

    type: Literal["EmptyDir", "PersistentVolumeClaim", "HostPath"] = "EmptyDir"
    """EmptyDir: weights live as long as the pod. PersistentVolumeClaim: one claim, <engine>-cache, shared by all models of this engine. HostPath: a directory of the node that an admin has prepared."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass of the claim. Default: the cluster's default class. Cannot be changed later."""
    size: Quantity | None = None
    """Size of the claim, or limit of the EmptyDir."""
    access_modes: (
        Annotated[
            list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]], Field(min_length=1, max_length=3)
        ]
        | None
    ) = None
    """Access modes of the claim. Default: ReadWriteOnce. More than one replica, or more than one node, needs ReadWriteMany. Cannot be changed later."""
    path: Annotated[str, Field(max_length=1024, pattern=r"^/[^:]+$")] | None = None
    """Directory on the node, with type: HostPath; it must be writable for the engine's user."""


class InferenceEngineSpec(ApiModel):
    """Which engine, on which hardware, with which pod settings; ModelDeployments refer to it."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "(self.type == 'Custom') == has(self.custom)",
            "custom is given exactly when type is Custom",
        ),
        Cel(
            "self.type != 'Custom' || has(self.image)",
            "type Custom needs an image: Stoker knows no default for it",
        ),
        Cel(
            "self.type != 'TextGenerationWebUI' || has(self.image)",
            "type TextGenerationWebUI needs an image: its makers publish none, build one from docker/ of its repository",
        ),
        Cel(
            "self.type != 'TabbyAPI' || self.accelerator.vendor == 'NVIDIA'",
            "type TabbyAPI computes on NVIDIA GPUs only: set accelerator.vendor to NVIDIA, or take another type",
        ),
        Cel(
            "self.engineAuth == 'None' || !(self.type in ['Ollama', 'LMStudio'])",
            "engineAuth: Ollama and LMStudio cannot ask for a key: remove it, or take another type",
        ),
        Cel(
            "self.type != 'Ollama' || !has(self.args) || size(self.args) == 0",
            "type Ollama takes no arguments: remove args; what no field covers can be set by env",
        ),
        Cel(
            "self.type == 'Custom' || !has(self.args) || "
            "!self.args.exists(argument, argument.matches('^--(host|port|api-key)(=.*)?$'))",
            "args must not set --host, --port or --api-key: engines listen where the gateway looks for them, and keys are ApiKeys",
        ),
    )

    type: EngineType
    """The inference server: VLLM, LlamaCpp, Ollama, TabbyAPI, Aphrodite, LocalAI, TextGenerationWebUI, LMStudio, SGLang, or Custom for one that you describe in `custom`. docs/engines.md says what each can do."""
    custom: CustomEngine | None = None
    """With type: Custom, how the inference server is started and asked."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image. Default: the pinned image of the engine table for the accelerator."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Pull policy of the engine's container. Default: IfNotPresent."""
    image_pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=16)] | None = None
    """Secrets for the registry, in this namespace."""
    accelerator: Accelerator = Accelerator()
    """The devices this engine computes on."""
    engine_auth: Literal["None", "GeneratedKey"] = "None"
    """GeneratedKey: every model gets a key of its own that only its gateways and its agent know, so that nobody else in the cluster is answered where NetworkPolicies are not enforced. Engines without keys refuse it."""
    args: Arguments = []
    """Arguments for every model on this engine, after the generated ones. Flags that Stoker manages (host, port, model, alias, metrics, keys) are refused by name."""
    env: KubernetesList | None = None
    """Environment variables of the engine's container, as in a Pod."""
    env_from: KubernetesList | None = None
    """Sources of environment variables of the engine's container, as in a Pod."""
    resources: KubernetesObject | None = None
    """Requests and limits of the engine's container, as in a Pod. Accelerators are added from the model's `gpus`."""
    shared_memory_size: Quantity | None = None
    """Size of /dev/shm. Default: what the engine needs, 1Gi where a replica uses more than one device, else the container runtime's own."""
    node_selector: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Labels that a node must have."""
    tolerations: KubernetesList | None = None
    """Taints that the pods accept, as in a Pod."""
    affinity: KubernetesObject | None = None
    """Affinity of the pods, as in a Pod."""
    topology_spread_constraints: KubernetesList | None = None
    """Topology spread constraints, as in a Pod."""
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """RuntimeClass of the pods, such as nvidia."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods."""
    scheduler_name: Annotated[str, Field(max_length=253)] | None = None
    """Scheduler of the pods."""
    cache: Cache = Cache()
    """Where downloaded weights are kept."""
    startup_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] | None = None
    """How long the engine may take from its start until the model is loaded. Default: 600, or 300 and 20 for each GiB of weights when that is more, or 3600 where the engine fetches the weights itself (hf://ORG/REPO, ollama://)."""
    pod_template: KubernetesObject | None = None
    """Merged last over the generated pod template, lists by name, mountPath or containerPort: for what the other fields do not cover."""


class InferenceEngineStatus(StatusModel):
    """What Stoker made of it."""

    observed_generation: int = 0
    """The metadata.generation that was last acted on."""
    image: str | None = None
    """Image that new models on this engine get."""
    models: int = 0
    """How many ModelDeployments refer to this engine."""
    conditions: Conditions = []
    """Ready; Reconciling and Stalled while true."""


class InferenceEngine(Resource):
    """Which engine serves models in this namespace, and how it runs: image, accelerator, resources, placement, weight cache."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="InferenceEngine",
        plural="inferenceengines",
        singular="inferenceengine",
        short_names=("ie",),
        columns=(
            PrinterColumn("Type", ".spec.type"),
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            PrinterColumn("Models", ".status.models", "integer"),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
            PrinterColumn("Image", ".status.image", priority=1),
            PrinterColumn("Message", ".status.conditions[?(@.type=='Ready')].message", priority=1),
        ),
    )

    spec: InferenceEngineSpec
    status: InferenceEngineStatus = InferenceEngineStatus()
