"""A request as Envoy tells of it, and what is decided about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.gateway.bounds import Scope
from stoker.gateway.endpoints import Dialect
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.routing import Route

ANSWER_CLUSTER = "answer"
ENGINES_CLUSTER = "engines"
ALLOWED = "allowed"
"""The reason of what goes to an engine."""
TOLD_OF_SERVED = ("key", "model", "cluster", "role", "user", "caller")
"""What the log tells of that, in one header with tabs between: each header of its own costs Envoy a microsecond."""


@dataclass(slots=True, eq=False)
class Decision:
    """Allowed towards a cluster, or refused with a problem."""

    reason: str
    """Why, for log and metrics: allowed, answered, or the code of the problem."""
    cluster: str = ""
    """Where an allowed request goes: the relay, or a model's replicas (namespace/name of its ModelDeployment)."""
    answer: str = ""
    """What the relay shall say, when the cluster is the relay."""
    model: str = ""
    """Served name, only of models that exist: metrics count by it."""
    requested: str = ""
    """The name that was asked for, where the relay's answer quotes it."""
    key: str = ""
    """Name of the caller's ApiKey; of a token jwt: and its user."""
    caller: str = ""
    """Whose requests are counted together."""
    role: str = ""
    """The caller's, of what goes to an engine. Towards the relay only where it has to know: the role of a token's user."""
    user: str = ""
    """For whom the call is, where the key or a token says so."""
    engine_key: str = ""
    """What the engine asks for."""
    adds: str = ""
    """What is put at the end of the request's body, as JSON without braces."""
    problem: ApiProblem | None = None
    scopes: tuple[Scope, ...] = ()
    """What the request counts in."""
    max_tokens: int = 0
    """Tokens it may have generated; 0 for any number."""
    says: ApiProblem | None = None
    """What the relay shall say, word for word."""
    held: str = ""
    """The place in the queue that the relay keeps for the caller, and how often it sends a sign of life."""
    route: Route | None = None
    """Of a name that stands for several deployments: which one is chosen for each request; cluster is empty for one outside."""
    via: str = ""
    """Envoy's cluster, where it is not that of the deployment."""
    model_at: str = ""
    """Where in the body the model's name stands, for it is another one to the backend."""
    dialect: Dialect = "openai"
    """Whose words the problem is in."""
    wire: bytes = b""
    """What a transport made of it, kept with decisions that are used again."""


@dataclass(slots=True)
class Request:
    """What Envoy tells of a request."""

    method: str
    target: str
    """Path with query, exactly as the client sent it."""
    authorization: str
    """The Authorization header; of several, nothing. Where the path takes it, what came in x-api-key stands here."""
    body: bytes = b""
    content_type: str = ""
    user_token: str = ""
    """What a service says of its user (X-OpenWebUI-User-Jwt): believed of keys that speak for users, and if its signature is good."""
    user_groups: str = ""
    """His groups, as the service says beside a good token that names none (X-OpenWebUI-User-Groups): percent-encoded, commas between them."""
    early: bool = False
    """Asked before the body was read: say only whether it may be read."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """The body, once it has been read; of a form nothing."""
    place: str = ""
    """The place in the queue with which the relay comes back."""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def streams(self) -> bool:
        """Whether the caller wants the answer as it is made."""
        return self.document.get("stream") is True
