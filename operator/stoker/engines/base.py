"""What every engine says about itself, and what one launch of it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from stoker.api.inference_engine import EngineType, Vendor
from stoker.api.model_deployment import DataType, Format, KVCacheType, Quantization, Task
from stoker.api.resolved import Shape

PORT = 8080
"""Where every engine listens: one port in Services, probes and policies, whatever an engine's own default is."""
CONFIG_DIRECTORY = "/etc/stoker/engine"
CHAT_TEMPLATE_PATH = "/etc/stoker/chat-template/chat-template.jinja"
MODELS_DIRECTORY = "/models"
HUB_DIRECTORY = f"{MODELS_DIRECTORY}/huggingface"
"""Where engines keep what they fetch from Hugging Face themselves: in the cache volume."""

FieldName = Literal[
    "aliases",
    "contextLength",
    "tensorParallelSize",
    "pipelineParallelSize",
    "gpuMemoryUtilizationPercent",
    "dtype",
    "quantization",
    "kvCacheType",
    "chatTemplate",
    "toolCallParser",
    "reasoningParser",
    "adapters",
    "speculativeDecoding",
]
"""Fields of a ModelDeployment that an engine renders or refuses with its reason."""


@dataclass(frozen=True)
class AdapterPath:
    """A LoRA adapter and where the engine finds it: a folder, or a repository that it fetches itself."""

    name: str
    path: str


@dataclass(frozen=True)
class Speculation:
    """Tokens guessed ahead; the draft is a path, or a repository that the engine fetches itself, and empty for n-grams."""

    draft: str = ""
    tokens: int | None = None

    @property
    def count(self) -> int:
        """Tokens at a time."""
        return self.tokens or 4


@dataclass(frozen=True)
class EngineRequest:
    """What one replica shall serve, in the domain's words; an engine turns it into its own flags."""

    served_name: str
    model_path: str = ""
    """File or folder inside the container; empty for what the engine fetches itself."""
    shape: Shape = "File"
    reference: str = ""
    """ORG/REPO, or a name in the Ollama library."""
    revision: str = ""
    format: Format = "GGUF"
    """Never Auto."""
    task: Task = "Chat"
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    """Tokens of context of one request; None: the engine's own choice."""
    context_comes: bool = False
    """It will be chosen by what the model's header says, before the engine starts."""
    slots: int = 4
    """Requests worked on at a time."""
    vendor: Vendor = "None"
    compute_capability: Decimal | None = None
    gpus: int = 0
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    gpu_memory_percent: int | None = None
    dtype: DataType | None = None
    quantization: Quantization | None = None
    kv_cache_type: KVCacheType | None = None
    cpu_limit: Decimal | None = None
    memory_limit: Decimal | None = None
    """Bytes."""
    chat_template_path: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    adapters: tuple[AdapterPath, ...] = ()
    speculation: Speculation | None = None
    engine_key: bool = False
    """It shall ask for a generated key."""
    image: str = ""
    """The image in use; empty while it is not known."""
    own_image: bool = False
    """The InferenceEngine names an image, which may be able to do more, or less, than the pinned one."""
    custom_command: tuple[str, ...] = ()
    engine_name: str = ""
    engine_args: tuple[str, ...] = ()
    engine_env: tuple[str, ...] = ()
    """Names of the variables; values stay where they are."""
    deployment_name: str = ""
    deployment_args: tuple[str, ...] = ()
    deployment_env: tuple[str, ...] = ()

    @property
    def args(self) -> tuple[str, ...]:
        """The users' arguments: the model's after the engine's, so that the model's win."""
        return self.engine_args + self.deployment_args

    @property
    def model(self) -> str:
        """What engines that fetch for themselves are told to open: a path or a repository."""
        return self.reference if self.shape == "Repository" else self.model_path

    @property
    def fetches_from_hub(self) -> bool:
        """Whether the engine needs Hugging Face at its start."""
        draft = self.speculation.draft if self.speculation else ""
        beside = [*(adapter.path for adapter in self.adapters), *([draft] if draft else [])]
        return self.shape == "Repository" or any(not path.startswith("/") for path in beside)

    def is_set(self, name: FieldName) -> bool:
        """Whether the user set a field."""
        values: dict[FieldName, object] = {
            "aliases": self.aliases,
            "contextLength": self.context_length,
            "tensorParallelSize": self.tensor_parallel_size,
            "pipelineParallelSize": self.pipeline_parallel_size,
            "gpuMemoryUtilizationPercent": self.gpu_memory_percent,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kvCacheType": self.kv_cache_type,
            "chatTemplate": self.chat_template_path,
            "toolCallParser": self.tool_call_parser,
            "reasoningParser": self.reasoning_parser,
            "adapters": self.adapters,
            "speculativeDecoding": self.speculation,
        }
        return values[name] not in (None, ())


def _always(_: EngineRequest) -> bool:
    return True


def when_set(name: FieldName) -> Callable[[EngineRequest], bool]:
    """For flags that are the user's as long as a field is not set."""
    return lambda request: request.is_set(name)


@dataclass(frozen=True)
class ManagedFlags:
    """Flags and variables that a user may not set, since a field or Stoker itself does."""

    flags: frozenset[str]
    instead: str
    """The next step for the user."""
    env: frozenset[str] = frozenset()
    when: Callable[[EngineRequest], bool] = _always
    """Whether the matching field is set; a flag whose field is not set is the user's."""


@dataclass(frozen=True)
class Image:
    """A default image for an accelerator."""

    name: str
    note: str = ""
    """What a user should know: not official, not versioned."""


@dataclass(frozen=True)
class Readiness:
    """When the model is loaded: a page answers 200 and, where that says too little, its JSON body says so.

    ``{name}`` in path and values stands for the served name.
    """

    path: str
    items: str = ""
    """Key of the list in the body of which one entry must fit; empty: the body itself is the entry."""
    key: str = ""
    """Key in the entry; empty: the status alone decides."""
    equals: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    """Values, beside null, that mean: no model."""

    def of(self, served_name: str) -> Readiness:
        """With the served name put in."""
        return Readiness(
            path=self.path.replace("{name}", served_name),
            items=self.items,
            key=self.key,
            equals=tuple(value.replace("{name}", served_name) for value in self.equals),
            differs=self.differs,
        )


@dataclass(frozen=True)
class Metrics:
    """Where an engine tells its numbers, and under which names; empty for what it does not tell."""

    path: str = ""
    running: str = ""
    waiting: str = ""
    prompt_tokens: str = ""
    completion_tokens: str = ""
    kv_cache_used: str = ""
    """A ratio between 0 and 1."""
    time_to_first_token: str = ""
    """A histogram in seconds, as are the next."""
    inter_token_latency: str = ""


@dataclass(frozen=True)
class Security:
    """What the engine's container needs beyond Pod Security *restricted*; nothing, for most."""

    root: bool = False
    read_only_root: bool = True


@dataclass(frozen=True)
class Launch:
    """What starts an engine with one model."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Configuration by absolute path; mounted from a ConfigMap."""
    writable: tuple[str, ...] = ()
    """Directories beside /tmp that it writes to; what is there is gone with the pod."""


KEY_VARIABLE = "STOKER_ENGINE_KEY"
"""Holds the generated key in the engine's container, where it is not a variable of the engine's own."""


@dataclass(frozen=True)
class KeyPlace:
    """Where an engine looks for the key that it asks for; one of the three."""

    variable: str = ""
    flag: str = ""
    file: str = ""
    """Path of a file with ``api_key: KEY``."""


@dataclass(frozen=True)
class Oldest:
    """The first version that takes everything that Stoker writes."""

    version: tuple[int, ...]
    shown: str
    what: str
    """What an older one lacks."""


@dataclass(frozen=True)
class Engine:
    """One inference server: the only thing a new engine has to provide."""

    type: EngineType
    title: str
    """How its makers write it."""
    version: str
    """What flags, pages and series were checked against."""
    reference: str
    """Where its flags are described."""
    images: Mapping[Vendor, Image]
    """Default image by accelerator."""
    vendors: frozenset[Vendor]
    """Accelerators it can compute on, with an image of one's own where there is no default."""
    formats: Mapping[Format, Decimal | None]
    """What the default image loads, with the least CUDA compute capability where there is one."""
    shapes: frozenset[Shape]
    """What a source may be."""
    tasks: frozenset[Task]
    build: Callable[[EngineRequest], Launch]
    """The generated launch; users' arguments are added by ``launch``."""
    managed: tuple[ManagedFlags, ...]
    refused: Mapping[FieldName, str]
    """Why a field cannot be rendered; every other field is."""
    ready: Readiness
    live_path: str = ""
    """Answers while the model loads, too, and is cheap; empty: a connection is all that can be asked for."""
    metrics: Metrics = Metrics()
    own_image_formats: frozenset[Format] = frozenset()
    """Formats for which an image of one's own is needed: a plugin, or an older version."""
    format_notes: Mapping[Format, str] = field(default_factory=dict)
    """What to say when a format is refused, or to know when it is not."""
    dtypes: Mapping[DataType, str] = field(default_factory=dict)
    quantizations: Mapping[Quantization, str] = field(default_factory=dict)
    kv_cache_types: Mapping[KVCacheType, str] = field(default_factory=dict)
    tool_call_parsers: frozenset[str] = frozenset()
    """Known to the pinned image; empty: any name is passed on."""
    reasoning_parsers: frozenset[str] = frozenset()
    needs_context_length: str = ""
    """Why contextLength must be given; empty: it need not."""
    takes_args: bool = True
    oldest: Oldest | None = None
    key_place: KeyPlace | None = None
    """None: it cannot ask for a key."""
    device_optional: bool = False
    """Its images for devices compute on the CPU, too, when a replica is given no device."""
    check: Callable[[EngineRequest], None] | None = None
    """What only this engine has to refuse."""
    normalize_env: Callable[[str], str] = str
    """Maps spellings of a variable's name that the engine takes for the same."""
    chat_template_path: str = CHAT_TEMPLATE_PATH
    security: Security = Security()
    shared_memory: str = ""
    """Size of /dev/shm that it needs even on one device."""
    stop: str = ""
    """What becomes of running requests at SIGTERM, which comes after the drain."""
    port: int = PORT

    def image(self, vendor: Vendor) -> str | None:
        """The default image for an accelerator, None where its makers publish none."""
        image = self.images.get(vendor)
        return image.name if image else None

    def launch(self, request: EngineRequest) -> Launch:
        """The whole launch: users' arguments last."""
        built = self.build(request)
        return Launch(built.command + request.args, built.env, built.files, built.writable)

    def command(self, request: EngineRequest) -> tuple[str, ...]:
        """The whole command line."""
        return self.launch(request).command

    @property
    def all_formats(self) -> frozenset[Format]:
        """What it loads with some image."""
        return frozenset(self.formats) | self.own_image_formats


def names(*lines: str) -> frozenset[str]:
    """Words that would make a long column if each stood alone."""
    return frozenset(word for line in lines for word in line.split())


def on_any_device(*formats: Format) -> dict[Format, Decimal | None]:
    """Formats that ask for no compute capability."""
    return dict.fromkeys(formats)


def from_capability(least: str, *formats: Format) -> dict[Format, Decimal | None]:
    """Formats with the least CUDA compute capability that the default image takes for them."""
    return dict.fromkeys(formats, Decimal(least))


def hub_env(request: EngineRequest, *, home: str = "") -> dict[str, str]:
    """For engines on Hugging Face's libraries: where the cache is, and no calls home when nothing is to be fetched."""
    env = {"HF_HOME": home or (HUB_DIRECTORY if request.shape == "Repository" else "/tmp/huggingface")}  # noqa: S108
    # Processes without an entry in /etc/passwd have no name; PyTorch asks for one.
    env["USER"] = "stoker"
    if not request.fetches_from_hub:
        env["HF_HUB_OFFLINE"] = "1"
    return env
