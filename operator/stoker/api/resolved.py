"""What resolving passes on to building: the object, what it refers to, and what was chosen for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from stoker.api.api_gateway import ApiGateway
from stoker.api.api_key import ApiKey
from stoker.api.base import StatusModel
from stoker.api.inference_engine import InferenceEngine
from stoker.api.inspection import FitStatus, ModelStatus
from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import short_digest


@dataclass(frozen=True)
class OperatorSettings:
    """What the chart tells the operator and every child depends on."""

    stoker_image: str
    """Image of the agent, fetch and gateway containers."""
    stoker_image_pull_policy: str = "IfNotPresent"
    envoy_image: str = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
    web_ui_image: str = "ghcr.io/open-webui/open-webui:v0.12.4"
    image_pull_secrets: tuple[str, ...] = ()
    operator_namespace: str = "stoker-system"
    operator_labels: dict[str, str] = field(
        default_factory=lambda: {"app.kubernetes.io/name": "stoker", "app.kubernetes.io/component": "operator"}
    )
    """Labels of the operator's own pods: NetworkPolicies let them reach agents and gateways."""
    allow_pod_template: bool = True
    cluster_scoped: bool = True
    """False where the operator watches namespaces only: nodes and namespace labels cannot be read."""


Shape = Literal["File", "Folder", "Repository", "Library"]
"""What a source is to an engine: a GGUF file, a folder of files, a repository on Hugging Face, a name in the Ollama library."""


@dataclass(frozen=True)
class ParsedSource:
    """A model source, taken apart (by stoker.models.source)."""

    scheme: Literal["http", "https", "file", "pvc", "hf", "ollama"]
    uri: str
    files: tuple[str, ...]
    """Names of the files, the one the engine opens first; several for a split GGUF; none where the shape is not File."""
    digest: str
    """Folder in the weight cache; empty for what `stoker fetch` does not bring."""
    claim: str = ""
    """Name of the PersistentVolumeClaim (pvc)."""
    path: str = ""
    """Path inside the claim or on the node, without the file name (pvc, file)."""
    shape: Shape = "File"
    reference: str = ""
    """ORG/REPO or NAME:TAG (hf, ollama)."""
    revision: str = ""

    @property
    def identity(self) -> str:
        """What a description of the model belongs to; empty for what nobody can look at."""
        if self.digest or self.shape == "Library":
            return self.digest
        return short_digest(f"{self.uri}@{self.revision}")

    @property
    def downloaded(self) -> bool:
        """Whether `stoker fetch` brings it."""
        return self.scheme in ("http", "https")

    @property
    def cached(self) -> bool:
        """Whether it comes from outside and is kept in the engine's cache volume."""
        return self.downloaded or self.fetched_by_engine

    @property
    def fetched_by_engine(self) -> bool:
        """Whether the engine itself brings it, and so writes to the cache volume."""
        return self.shape in ("Repository", "Library")


class ChosenValues(StatusModel):
    """What was decided for a ModelDeployment; kept in an annotation so that an operator upgrade restarts no engine."""

    model: str
    """Digest of what the ModelDeployment asked for, without what changes no pod, such as replicas and gateways."""
    engine: str
    """Digest of the InferenceEngine's uid and spec."""
    refresh: str = ""
    engine_name: str | None = None
    """The InferenceEngine that Stoker chose; None where spec.engineRef names one."""
    engine_reason: str | None = None
    engine_image: str
    stoker_image: str
    startup_deadline_seconds: int
    context_length: Annotated[int, Field(ge=0)] | None = None
    memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """Of one device, or of the node on the CPU, as a node told it where the engine does not say."""
    memory_node: str | None = None


@dataclass(frozen=True)
class ResolvedModelDeployment:
    """A ModelDeployment with its engine, source and chosen values: all that the children depend on."""

    deployment: ModelDeployment
    engine: InferenceEngine
    source: ParsedSource
    chosen: ChosenValues
    gpus: int
    """Devices of one replica, defaults applied."""
    replicas: int
    """Replicas wanted now."""
    publishers: tuple[tuple[str, str], ...] = ()
    """(namespace, name) of the gateways that publish it, sorted."""
    model: ModelStatus | None = None
    """What its files say, once they have been looked at."""
    fit: FitStatus | None = None
    misfit: str = ""
    """Why it does not fit, and what would; empty when it does, or nobody knows."""


@dataclass(frozen=True)
class PublishedModel:
    """A model as a gateway publishes it."""

    deployment: ModelDeployment
    stopped: bool
    engine_type: str = ""
    """Type of the InferenceEngine that serves it; empty where there is none."""
    engine_key: str = ""
    """What its engine asks for; empty where it asks for nothing."""


@dataclass(frozen=True)
class ResolvedApiGateway:
    """An ApiGateway with the models it publishes and the keys it lets in."""

    gateway: ApiGateway
    models: tuple[PublishedModel, ...]
    keys: tuple[ApiKey, ...]
    token: str
    """Bearer token between operator and gateway pods, kept in the routes Secret."""
    ready_replicas: int = 0
    """Pods that serve; limits are divided among them."""
    redis_url: str = ""
    """Where they count together; empty where each counts for itself."""
    jwt_secrets: Mapping[str, str] = field(default_factory=dict)
    """Shared secrets of issuers and of keys that speak for users, by the name of their Secret; one that is missing is not there."""
    client_secret: str = ""
    """For introspection; empty where its Secret is missing."""
    backend_secrets: Mapping[str, str] = field(default_factory=dict)
    """Keys of backends outside, by the name of their Secret."""
    authorities: str = ""
    """Certificates of spec.certificateAuthorities, as PEM; empty where there are none, or they cannot be read."""
    address: str | None = None
    """Base URL for clients, as far as it is known."""
    account_uid: str = ""
    """uid of the ServiceAccount its pods have their tokens from; a token of an earlier one is refused for ever."""
