"""What all kinds share: the pydantic base, the marks that become CEL rules, and references."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "stoker.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

SERVICE_URL = "^http://[A-Za-z0-9.-]+[.]svc([.]cluster[.]local)?(:[0-9]+)?(/|$)"
"""For CEL: an address without TLS that does not leave the cluster."""


@dataclass(frozen=True)
class Cel:
    """A CEL rule of the CRD: on a class in ``cel_rules``, on a field inside ``Annotated``."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True)
class PreserveUnknown:
    """Marks a field whose content Kubernetes itself defines (affinity, env …): stored as it is, neither checked nor explained."""

    item: Literal["object", "array"] = "object"


@dataclass(frozen=True)
class IntOrString:
    """Marks a string that may also be written as a number, as quantities are in Kubernetes."""


@dataclass(frozen=True)
class MapKeys:
    """Marks a list that server-side apply merges by these keys (``x-kubernetes-list-type: map``)."""

    keys: tuple[str, ...]


class ApiModel(BaseModel):
    """A part of a Stoker resource; attribute docstrings become ``kubectl explain``."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    cel_rules: ClassVar[tuple[Cel, ...]] = ()


class StatusModel(BaseModel):
    """A part of ``status``: written by Stoker, read leniently, for an older or newer Stoker may have written it."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )
    cel_rules: ClassVar[tuple[Cel, ...]] = ()


KubernetesObject = Annotated[dict[str, Any], PreserveUnknown()]
KubernetesList = Annotated[list[dict[str, Any]], PreserveUnknown("array")]

# Object names that also name a Service: DNS-1035, and short enough for the suffixes of children and pods.
NAME_RULE = Cel(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",
    "metadata.name must be a DNS label of at most 52 characters that starts with a letter (children carry it as prefix)",
)
DnsLabel = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]+)?$", max_length=32),
    IntOrString(),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class RequestLimits(ApiModel):
    """How much one caller may ask for."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Requests to models in any 60 seconds. Without limits.redisSecretRef each ready replica of the gateway admits its share."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=1000000000)] | None = None
    """Tokens in any 60 seconds, of prompts and answers: a prompt is estimated when it comes, and corrected by what the engine counted. Shared like requestsPerMinute."""
    concurrent_requests: Annotated[int, Field(ge=1, le=100000)] | None = None
    """Requests that may run or be held at the same time. Shared like requestsPerMinute."""
    max_tokens_per_request: Annotated[int, Field(ge=1, le=10000000)] | None = None
    """Tokens that one request may have generated. One that asks for more is refused; one that says nothing gets this as its maximum."""


class LocalObjectReference(ApiModel):
    """Names an object in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the object, in the same namespace."""


class LabelSelector(ApiModel):
    """Chooses objects by labels, as everywhere in Kubernetes."""

    match_labels: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Labels that all must be there with these values."""
    match_expressions: KubernetesList | None = None
    """Requirements of the form {key, operator: In | NotIn | Exists | DoesNotExist, values}."""


class NamespaceSelection(ApiModel):
    """From which namespaces the other side may come."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel("(self.from == 'Selector') == has(self.selector)", "selector is given exactly when from is Selector"),
    )

    # ``from`` is a Python keyword; the alias is the field's name in Kubernetes.
    from_: Annotated[Literal["Same", "All", "Selector"], Field(alias="from")] = "Same"
    """Same: only this object's own namespace. All: every namespace. Selector: namespaces whose labels match `selector`."""
    selector: LabelSelector | None = None
    """Labels of the namespaces, with from: Selector."""


class Condition(StatusModel):
    """metav1.Condition."""

    type: str
    """Ready is always there; Reconciling and Stalled only while they are true."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: int = 0
    """The metadata.generation this condition was computed for."""
    last_transition_time: datetime
    """When the status last changed."""
    reason: str
    """The cause, in one CamelCase word."""
    message: str = ""
    """What is the case, naming the object, and the next step."""


Conditions = Annotated[list[Condition], Field(max_length=16), MapKeys(("type",))]


class Metadata(StatusModel):
    """The part of ObjectMeta that Stoker reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class PrinterColumn:
    """A column of ``kubectl get``."""

    name: str
    json_path: str
    type: Literal["string", "integer", "date", "number", "boolean"] = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class ScaleSubresource:
    """Where ``/scale`` finds its numbers."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True)
class KindInfo:
    """How a kind is registered in Kubernetes."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...]
    categories: tuple[str, ...] = ("stoker",)
    scale: ScaleSubresource | None = None


class Resource(BaseModel):
    """One object of ours: ``metadata``, ``spec``, ``status``. Subclasses name the kind in ``info``."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )
    info: ClassVar[KindInfo]
    cel_rules: ClassVar[tuple[Cel, ...]] = (NAME_RULE,)

    metadata: Metadata

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name
