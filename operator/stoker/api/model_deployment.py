"""ModelDeployment: a model, served under a name by replicas of an engine."""

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
    NamespaceSelection,
    PrinterColumn,
    Resource,
    ScaleSubresource,
    Sha256,
    StatusModel,
)
from stoker.api.inference_engine import Arguments
from stoker.api.inspection import FitStatus, ModelStatus

Task = Literal["Chat", "Completion", "Embedding"]
ServedName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]


class ModelSource(ApiModel):
    """Where the weights come from."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.uri.startsWith('http://') || self.uri.startsWith('https://') || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "source.uri must start with https://, http://, pvc:// or file://. For a model on Hugging Face use https://huggingface.co/ORG/REPO/resolve/main/FILE.gguf",
            field_path=".uri",
        ),
        Cel(
            "!self.uri.startsWith('pvc://') || self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+')",
            "source.uri with pvc:// must read pvc://CLAIM/PATH/FILE.gguf",
            field_path=".uri",
        ),
        Cel(
            "!self.uri.startsWith('file://') || self.uri.startsWith('file:///')",
            "source.uri with file:// must read file:///PATH/ON/THE/NODE/FILE.gguf",
            field_path=".uri",
        ),
        Cel(
            "!(has(self.sha256) || has(self.secretRef)) || self.uri.startsWith('http')",
            "source.sha256 and source.secretRef belong to http:// and https:// sources: nothing is downloaded from pvc:// and file://",
        ),
    )

    uri: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^[^\s]+$")]
    """https://… or http://… of one GGUF file (of a split model: of its first part, -00001-of-000NN.gguf), pvc://CLAIM/PATH, or file:///PATH on the node."""
    sha256: Annotated[dict[str, Sha256], Field(min_length=1, max_length=256)] | None = None
    """SHA-256 by file name; a file that differs is not served."""
    secret_ref: LocalObjectReference | None = None
    """Secret whose key `token` is sent as a bearer token to the source."""


class ConfigMapKey(ApiModel):
    """A key of a ConfigMap in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "chat-template.jinja"
    """Key in the ConfigMap."""


class ChatTemplate(ApiModel):
    """Replaces the chat template that the model brings along."""

    config_map_ref: ConfigMapKey
    """ConfigMap with the Jinja template."""


class Rollout(ApiModel):
    """How replicas are replaced."""

    strategy: Literal["Auto", "Recreate", "RollingUpdate"] = "Auto"
    """Auto: without a surge replica where devices are requested, since the spare device does not exist; a rolling update otherwise."""
    drain_timeout_seconds: Annotated[int, Field(ge=0, le=86400)] = 300
    """How long a replica that is going away may finish its running requests."""
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=172800)] | None = None
    """When a rollout that does not advance is reported as failed. Default and lower bound: drain timeout + startup deadline."""


class ModelDeploymentSpec(ApiModel):
    """Which model, on which engine, how many replicas."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.aliases) || !has(self.servedModelName) || !(self.servedModelName in self.aliases)",
            "aliases must not repeat servedModelName",
        ),
        Cel(
            "self.task == 'Chat' || !has(self.chatTemplate)",
            "chatTemplate belongs to task: Chat",
        ),
    )

    engine_ref: LocalObjectReference
    """The InferenceEngine that serves this model, in the same namespace."""
    source: ModelSource
    """Where the weights come from."""
    served_model_name: ServedName | None = None
    """The name clients ask for. Default: metadata.name."""
    aliases: Annotated[list[ServedName], Field(max_length=16)] = []
    """Further names clients may ask for."""
    task: Task = "Chat"
    """What the model is for, and so which API paths are open: Chat, Completion or Embedding."""
    context_length: Annotated[int, Field(ge=64, le=16777216)] | None = None
    """Tokens of context of one request. Default: what the model was trained with, or the largest that fits the memory."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=4096)] = 4
    """Requests that one replica works on at a time; each has a context of its own."""
    fit_policy: Literal["Enforce", "Warn", "Ignore"] = "Enforce"
    """What happens when the model needs more memory than there is (status.fit). Enforce: it is not started, nor downloaded. Warn: the condition Fits says so. Ignore: nothing, and files whose header is broken are started, too."""
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """Devices of one replica. Default: 1, or 0 on an engine with accelerator.vendor None."""
    chat_template: ChatTemplate | None = None
    """Replaces the chat template that the model brings along."""
    args: Arguments = []
    """Arguments for this model, after the engine's. Flags that Stoker manages are refused by name."""
    env: KubernetesList | None = None
    """Environment variables of the engine's container, as in a Pod; they win over the engine's."""
    resources: KubernetesObject | None = None
    """Requests and limits of the engine's container, as in a Pod; they win over the engine's."""
    node_selector: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Labels that a node must have; they win over the engine's."""
    tolerations: KubernetesList | None = None
    """Taints that the pods accept, beside the engine's."""
    affinity: KubernetesObject | None = None
    """Affinity of the pods; replaces the engine's."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many replicas serve the model. 0 stops it: the gateway answers 503 model_stopped."""
    rollout: Rollout = Rollout()
    """How replicas are replaced."""
    gateways: NamespaceSelection = NamespaceSelection()
    """Gateways of which namespaces may publish this model."""


class DownloadStatus(StatusModel):
    """Progress of the slowest running download of weights."""

    file: str | None = None
    """The file being fetched."""
    completed_bytes: int = 0
    """Bytes on disk so far."""
    total_bytes: int | None = None
    """Bytes in all, when the source tells."""


class ModelDeploymentStatus(StatusModel):
    """What Stoker made of it."""

    observed_generation: int = 0
    """The metadata.generation that was last acted on."""
    replicas: int = 0
    """Replicas that exist, ready or not."""
    ready_replicas: int = 0
    """Replicas that serve."""
    desired_replicas: int = 0
    """Replicas that Stoker wants now."""
    selector: str | None = None
    """Label selector of the pods, for /scale."""
    engine: str | None = None
    """Name of the InferenceEngine in use."""
    image: str | None = None
    """Engine image in use."""
    update_available: str | None = None
    """What a new choice would change, such as a newer engine image; set the annotation stoker.dev/refresh to take it."""
    model: ModelStatus | None = None
    """What the headers of a downloaded model say."""
    fit: FitStatus | None = None
    """Memory that one replica takes, computed from the headers, and what there is."""
    download: DownloadStatus | None = None
    """Progress of the download, while one runs."""
    endpoint: str | None = None
    """Address of the engine inside the cluster, for tests by hand; clients use a gateway."""
    gateways: Annotated[list[str], Field(max_length=64)] = []
    """Gateways that publish this model, as namespace/name."""
    conditions: Conditions = []
    """Ready; Fits once the model's header was read and the memory is known; Reconciling and Stalled while true."""


class ModelDeployment(Resource):
    """A model, served under a name by replicas of an engine."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ModelDeployment",
        plural="modeldeployments",
        singular="modeldeployment",
        short_names=("smd",),
        scale=ScaleSubresource(),
        columns=(
            PrinterColumn("Engine", ".spec.engineRef.name"),
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            PrinterColumn("Replicas", ".status.readyReplicas", "integer"),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
            PrinterColumn("Desired", ".status.desiredReplicas", "integer", priority=1),
            PrinterColumn("Message", ".status.conditions[?(@.type=='Ready')].message", priority=1),
        ),
    )

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()

    @property
    def served_name(self) -> str:
        """The name clients ask for."""
        return self.spec.served_model_name or self.metadata.name
