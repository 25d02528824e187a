"""ModelDeployment: a model, served under a name by replicas of an engine."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.api.autoscaling import AutoscalingSpec, AutoscalingStatus, ColdStart
from stoker.api.base import (
    ApiModel,
    Cel,
    Conditions,
    KindInfo,
    KubernetesList,
    KubernetesObject,
    LocalObjectReference,
    MapKeys,
    NamespaceSelection,
    PrinterColumn,
    Resource,
    ScaleSubresource,
    Sha256,
    StatusModel,
)
from stoker.api.inference_engine import Arguments
from stoker.api.inspection import FitStatus, ModelStatus

Task = Literal["Chat", "Completion", "Embedding", "Rerank", "Transcription", "Speech", "Image"]
Format = Literal["Auto", "GGUF", "EXL2", "EXL3", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"]
DataType = Literal["Float16", "BFloat16", "Float32"]
Quantization = Literal["FP8", "INT8", "INT4"]
KVCacheType = Literal["F16", "FP8", "INT8", "INT4"]
ServedName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]


class ModelSource(ApiModel):
    """Where the weights come from."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "['http://', 'https://', 'hf://', 'ollama://', 'pvc://', 'file://'].exists(scheme, self.uri.startsWith(scheme))",
            "source.uri must start with https://, http://, hf://, ollama://, pvc:// or file://",
            field_path=".uri",
        ),
        Cel(
            "!self.uri.startsWith('hf://') || self.uri.matches('^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(/.+)?$')",
            "source.uri with hf:// must read hf://ORG/REPO or hf://ORG/REPO/FILE.gguf",
            field_path=".uri",
        ),
        Cel(
            "!self.uri.startsWith('pvc://') || self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+')",
            "source.uri with pvc:// must read pvc://CLAIM/PATH",
            field_path=".uri",
        ),
        Cel(
            "!self.uri.startsWith('file://') || self.uri.startsWith('file:///')",
            "source.uri with file:// must read file:///PATH/ON/THE/NODE",
            field_path=".uri",
        ),
        Cel(
            "!(has(self.sha256) || has(self.secretRef)) || self.uri.startsWith('http') || self.uri.startsWith('hf://')",
            "source.sha256 and source.secretRef belong to http://, https:// and hf:// sources",
        ),
        Cel(
            "!has(self.revision) || self.uri.startsWith('hf://')",
            "source.revision belongs to hf:// sources",
        ),
    )

    uri: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^[^\s]+$")]
    """https://… or http://… of one GGUF file (of a split model: of its first part, -00001-of-000NN.gguf); hf://ORG/REPO/FILE.gguf for one on Hugging Face; hf://ORG/REPO for a whole repository, which the engine fetches itself; ollama://NAME:TAG; pvc://CLAIM/PATH or file:///PATH on the node, of a GGUF file or a model's folder."""
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] | None = (
        None
    )
    """Branch, tag or commit, with hf://. Default: main. Only a commit is the same tomorrow."""
    sha256: Annotated[dict[str, Sha256], Field(min_length=1, max_length=256)] | None = None
    """SHA-256 by file name; a file that differs is not served."""
    secret_ref: LocalObjectReference | None = None
    """Secret whose key `token` is sent as a bearer token to the source; with hf:// it is the Hugging Face token."""


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


class AdapterSource(ApiModel):
    """Where the weights of an adapter come from."""

    uri: Annotated[
        str,
        Field(min_length=8, max_length=2048, pattern=r"^[^\s]+$"),
        Cel(
            "self.matches('^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$') || "
            "self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$')",
            "the uri of an adapter must read hf://ORG/REPO or pvc://CLAIM/PATH",
        ),
    ]
    """hf://ORG/REPO, which the engine fetches itself, or pvc://CLAIM/PATH in this namespace: a folder, or for LlamaCpp a GGUF file."""


class Adapter(ApiModel):
    """A LoRA adapter, served under a name of its own beside the model."""

    name: ServedName
    """The name clients ask for."""
    source: AdapterSource
    """Where its weights come from."""


class DraftSource(ApiModel):
    """Where the weights of a draft model come from."""

    uri: Annotated[
        str,
        Field(min_length=8, max_length=2048, pattern=r"^[^\s]+$"),
        Cel(
            "self.matches('^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$') || "
            "self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$')",
            "the uri of a draft model must read hf://ORG/REPO or pvc://CLAIM/PATH",
        ),
    ]
    """hf://ORG/REPO, which the engine fetches itself, or pvc://CLAIM/PATH in this namespace, of a folder or a GGUF file."""


class SpeculativeDecoding(ApiModel):
    """Tokens are guessed cheaply and checked several at a time: the same answers, sooner, while a replica is not busy."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "(self.method == 'DraftModel') == has(self.draft)",
            "speculativeDecoding.draft is given exactly when method is DraftModel",
        ),
    )

    method: Literal["NGram", "DraftModel"]
    """NGram guesses what followed the same words before, in the prompt or the answer. DraftModel asks a small model with the same vocabulary."""
    draft: DraftSource | None = None
    """The small model."""
    tokens: Annotated[int, Field(ge=1, le=64)] | None = None
    """How many tokens are guessed at a time. Default: 4."""


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
            "self.task == 'Chat' || !(has(self.chatTemplate) || has(self.toolCallParser) || has(self.reasoningParser))",
            "chatTemplate, toolCallParser and reasoningParser belong to task: Chat",
        ),
        Cel(
            "self.task == 'Chat' || self.task == 'Completion' || !has(self.speculativeDecoding)",
            "speculativeDecoding belongs to models that write texts: task Chat or Completion",
        ),
        Cel(
            "!has(self.gpus) || !(has(self.tensorParallelSize) || has(self.pipelineParallelSize)) || "
            "self.gpus == (has(self.tensorParallelSize) ? self.tensorParallelSize : 1) * "
            "(has(self.pipelineParallelSize) ? self.pipelineParallelSize : 1)",
            "gpus must be tensorParallelSize × pipelineParallelSize: correct it, or leave gpus away",
        ),
        Cel(
            "!has(self.quantization) || self.format in ['Auto', 'Safetensors']",
            "quantization makes full-precision weights smaller while they are loaded: it needs format Safetensors or Auto",
        ),
        Cel(
            "!has(self.adapters) || !self.adapters.exists(adapter, "
            "(has(self.servedModelName) && adapter.name == self.servedModelName) || "
            "(has(self.aliases) && adapter.name in self.aliases))",
            "adapters must have names of their own: not servedModelName, not one of aliases",
        ),
        Cel(
            "!has(self.autoscaling) || self.replicas == 1",
            "this deployment scales itself: change autoscaling.minReplicas",
            field_path=".replicas",
        ),
    )

    engine_ref: LocalObjectReference | None = None
    """The InferenceEngine that serves this model, in the same namespace. Default: Stoker chooses among those of the namespace by format, hardware and concurrency; status says which and why."""
    source: ModelSource
    """Where the weights come from."""
    served_model_name: ServedName | None = None
    """The name clients ask for. Default: metadata.name."""
    aliases: Annotated[list[ServedName], Field(max_length=16)] = []
    """Further names clients may ask for."""
    format: Format = "Auto"
    """Format of the weights. Auto: by the name of the source (.gguf, -AWQ, -GPTQ, -FP8, -exl3 …), else Safetensors."""
    task: Task = "Chat"
    """What the model is for, and so which API paths are open: Chat, Completion, Embedding, Rerank, Transcription, Speech or Image."""
    context_length: Annotated[int, Field(ge=64, le=16777216)] | None = None
    """Tokens of context of one request. Default: what the model was trained with, or the largest that fits the memory; engines that would silently take a small one ask for it where the memory is not known."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=4096)] = 4
    """Requests that one replica works on at a time; each has a context of its own."""
    fit_policy: Literal["Enforce", "Warn", "Ignore"] = "Enforce"
    """What happens when the model needs more memory than there is (status.fit). Enforce: it is not started, nor downloaded. Warn: the condition Fits says so. Ignore: nothing, and files whose header is broken are started, too."""
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """Devices of one replica. Default: tensorParallelSize × pipelineParallelSize, else 1, or 0 on an engine with accelerator.vendor None."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] | None = None
    """Devices that share each layer. Default, on engines that know the difference: gpus."""
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=64)] | None = None
    """Stages of layers, each on devices of its own. Default: 1."""
    gpu_memory_utilization_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """Share of the device memory that the engine takes for weights and cache. Default: the engine's own."""
    dtype: DataType | None = None
    """Type that weights and activations are computed in. Default: the model's own."""
    quantization: Quantization | None = None
    """Makes full-precision weights smaller while they are loaded. Weights that are quantized already need nothing here."""
    kv_cache_type: KVCacheType | None = None
    """Type of the attention cache: smaller ones hold more context in the same memory. Default: the engine's own."""
    chat_template: ChatTemplate | None = None
    """Replaces the chat template that the model brings along."""
    tool_call_parser: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """How tool calls are read out of the model's text, in the engine's own word, such as hermes. Engines that find out by themselves refuse it."""
    reasoning_parser: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """How reasoning is told from the answer, in the engine's own word, such as qwen3."""
    adapters: Annotated[list[Adapter], Field(max_length=32), MapKeys(("name",))] = []
    """LoRA adapters, loaded at the start."""
    speculative_decoding: SpeculativeDecoding | None = None
    """Guesses tokens ahead of the model. Default: as the engine does by itself."""
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
    """How many replicas serve the model. 0 stops it: the gateway answers 503 model_stopped. With autoscaling it stays 1 and means nothing."""
    autoscaling: AutoscalingSpec | None = None
    """Replicas by demand, down to none and back. Default: always spec.replicas."""
    cold_start: ColdStart | None = None
    """What happens to requests while there is no replica. Default: with autoscaling they are held, without they are answered 503 at once."""
    suspend: bool = False
    """Stops the model whatever replicas and autoscaling say, and keeps everything else: the gateway answers 503 model_stopped."""
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
    engine_reason: str | None = None
    """Why Stoker chose this engine and not another, where spec.engineRef is absent."""
    image: str | None = None
    """Engine image in use."""
    update_available: str | None = None
    """What a new choice would change, such as a newer engine image; set the annotation stoker.dev/refresh to take it."""
    model: ModelStatus | None = None
    """What the headers of the model say."""
    fit: FitStatus | None = None
    """Memory that one replica takes, computed from the headers, and what there is."""
    download: DownloadStatus | None = None
    """Progress of the download, while one runs."""
    autoscaling: AutoscalingStatus | None = None
    """What the autoscaler made of the load, with spec.autoscaling."""
    engine_key: bool = False
    """Whether its engine asks for a key, as engineAuth of the InferenceEngine says."""
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
            PrinterColumn("Engine", ".status.engine"),
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

    @property
    def served_names(self) -> tuple[str, ...]:
        """All names clients may ask for: the model's, its aliases, its adapters."""
        return (self.served_name, *self.spec.aliases, *(adapter.name for adapter in self.spec.adapters))
