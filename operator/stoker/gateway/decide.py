"""The decision: headers and body in, allow or refuse out. Pure, and free of any transport.

What the gateway itself answers with a 5xx or with a body of its own is *allowed* towards the relay: ext_authz would replace a 5xx
of ours by an empty 503 (design: decision 17).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from stoker.gateway import openai_errors as errors
from stoker.gateway.bounds import Scope
from stoker.gateway.config import Key, Model, Table, with_role
from stoker.gateway.endpoints import ENDPOINTS, Endpoint
from stoker.gateway.multipart import BadForm, read_form_field
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.openapi import OPENAPI_PATH
from stoker.gateway.routing import Route, find_model
from stoker.patterns import compile_patterns

if TYPE_CHECKING:
    from stoker.gateway.issuers import UserTokens
    from stoker.gateway.tokens import Identity, Verifier

ANSWER_CLUSTER = "answer"
ENGINES_CLUSTER = "engines"
ALLOWED = "allowed"
"""The reason of what goes to an engine."""
ANY_MODEL = compile_patterns(["*"])
KEY_PREFIX = "sk-"
"""What begins like this is a key, and no issuer is asked about it."""
LONGEST_KEY = 16 << 10
"""Of tokens, too, and those carry lists of groups."""
IDENTITIES = 10_000
CACHE_ENTRIES = 20_000

MODELS_PATH = "/v1/models"
MODEL_PREFIX = MODELS_PATH + "/"
USAGE_PATH = "/v1/usage"
OWN_PATHS = (MODELS_PATH, f"{MODEL_PREFIX}MODEL", USAGE_PATH, OPENAPI_PATH)
SERVED = ", ".join([*(f"POST {path}" for path in ENDPOINTS), *(f"GET {path}" for path in OWN_PATHS)])


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
    anthropic: bool = False
    """The problem is worded as Anthropic does."""
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
    """Of forms only."""
    user_token: str = ""
    """What a service says of its user (X-OpenWebUI-User-Jwt): believed of keys that speak for users, and if its signature is good."""
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


def decide(table: Table, request: Request, now: float) -> Decision:
    """Who calls, may he, and where does it go?"""
    path = request.target.partition("?")[0]
    endpoint = ENDPOINTS.get(path)
    decision = decide_path(table, request, path, endpoint, now)
    if decision.problem is not None and endpoint is not None and endpoint.anthropic:
        decision.anthropic = True
    return decision


def decide_path(table: Table, request: Request, path: str, endpoint: Endpoint | None, now: float) -> Decision:
    """The key comes first: without one nothing can be learned, not even which paths exist."""
    key = find_caller(table, request, now)
    if isinstance(key, ApiProblem):
        return Decision(errors.ASK_ABOUT_TOKEN if key is errors.UNASKED else key.code, problem=key)
    if endpoint is None:
        return decide_models(table, key, request.method, path)
    if request.method != "POST":
        return refuse(key, errors.method_not_allowed(request.method, path, "POST"))
    if request.early:
        return Decision("early", key=key.name)
    try:
        name = read_form_model(request) if endpoint.multipart else read_json_model(request)
    except BadBody as bad:
        return refuse(key, bad.problem)
    cached: Decision | None = table.cache.get((key.digest, name, path))
    if cached is not None:
        return cached
    decision = decide_route(table, key, name, path)
    if decision.problem is None:
        # Only names that exist get here, times keys: bounded, but a gateway may have many of both.
        if len(table.cache) >= CACHE_ENTRIES:
            table.cache.clear()
        table.cache[key.digest, name, path] = decision
    return decision


def find_caller(table: Table, request: Request, now: float) -> Key | ApiProblem:
    """The key, as that of its user where it speaks for one."""
    key = find_key(table, request.authorization, now)
    if isinstance(key, ApiProblem) or key.user_tokens is None:
        return key
    if request.user_token:
        return find_user(table, key, key.user_tokens, request.user_token, now)
    return errors.wrong_user_token("there is none") if key.user_tokens.required else key


def find_key(table: Table, authorization: str, now: float) -> Key | ApiProblem:
    """The key of the caller, by the hash of what was sent."""
    if authorization[:7].lower() != "bearer ":
        return errors.missing_key()
    secret = authorization[7:].strip()
    if not secret:
        return errors.missing_key()
    if len(secret) > LONGEST_KEY:
        return errors.wrong_key()
    digest = hashlib.sha256(secret.encode("latin-1", "replace")).digest()
    key = table.keys.get(digest)
    if key is None and table.verifier is not None and secret.count(".") == 2:
        return find_identity(table, table.verifier, secret, digest, now)
    if key is None and table.introspection is not None and not secret.startswith(KEY_PREFIX):
        return find_stranger(table, digest, now)
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        return errors.wrong_key()
    return key


def find_stranger(table: Table, digest: bytes, now: float) -> Key | ApiProblem:
    """Whom a token speaks for that says nothing by itself, as far as its issuer has told."""
    key = table.identities.get(digest)
    if key is not None and key.expires_at is not None and key.expires_at > now:
        return key
    until, problem = table.strangers.get(digest, (0.0, None))
    return problem if problem is not None and until > now else errors.UNASKED


def find_identity(table: Table, verifier: Verifier, token: str, digest: bytes, now: float) -> Key | ApiProblem:
    """Whom a token speaks for, as a key that lasts as long as the token."""
    key = table.identities.get(digest)
    if key is not None and key.expires_at is not None and key.expires_at > now:
        return key
    from stoker.gateway.tokens import BadToken, UnknownKey

    try:
        identity = verifier.verify(token, now)
    except UnknownKey as error:
        return errors.wrong_token(str(error), errors.UNKNOWN_SIGNING_KEY)
    except BadToken as error:
        return errors.wrong_token(str(error))
    return remember_identity(table, identity, digest, identity.expires_at)


def remember_identity(table: Table, identity: Identity, digest: bytes, until: float) -> Key | ApiProblem:
    """As a key, if he has a role here."""
    role = identity.role or table.role_of(identity.name, identity.groups) or identity.default_role
    made = Key(
        name=f"jwt:{identity.user}",
        digest=digest,
        expires_at=until,
        allowed=ANY_MODEL,
        role=role,
        caller=identity.caller,
        user=identity.user,
        by_token=True,
    )
    key = with_role(made, table.roles, table) if role else None
    if key is None:
        return errors.no_role(role)
    return remember(table, digest, key)


def find_user(table: Table, key: Key, by: UserTokens, token: str, now: float) -> Key | ApiProblem:
    """The key as that of the user it speaks for: what it may is the key's matter, what is counted is the user's."""
    digest = hashlib.sha256(key.digest + token.encode("latin-1", "replace")).digest()
    known = table.identities.get(digest)
    if known is not None and known.expires_at is not None and known.expires_at > now:
        return known
    from stoker.gateway.tokens import BadToken, verify_user

    try:
        user = verify_user(token, by, now)
    except BadToken as error:
        return errors.wrong_user_token(str(error))
    ends = user.expires_at if key.expires_at is None else min(user.expires_at, key.expires_at)
    made = replace(key, digest=digest, caller=f"{key.name} {user.name}", user=user.shown, expires_at=ends)
    return remember(table, digest, made)


def remember(table: Table, digest: bytes, key: Key) -> Key:
    """Kept for the next call with the same token."""
    if len(table.identities) >= IDENTITIES:
        table.identities.clear()
    table.identities[digest] = key
    return key


def decide_route(table: Table, key: Key, name: str, path: str) -> Decision:
    """A request for a model goes to its replicas, or to the relay, which says why not."""
    model = table.by_name.get(name)
    if model is None or not table.may_use(key, model, name):
        return refuse(key, errors.model_not_found(name))
    if path not in model.paths:
        return refuse(key, unsupported(table, key, model, name, path), model)
    if model.route is not None:
        return allow(table, key, model, name, route=model.route)
    if model.stopped:
        return to_relay(key, "model_stopped", model, name)
    return allow(table, key, model, name)


def allow(table: Table, key: Key, model: Model, name: str, route: Route | None = None) -> Decision:
    """Let through, within what the caller may ask for."""
    scopes = table.scopes(key, model)
    return Decision(
        ALLOWED,
        cluster=model.cluster,
        model=model.name,
        requested=name,
        key=key.name,
        user=key.user,
        caller=key.caller or key.name,
        role=key.role,
        engine_key=model.engine_key,
        adds=model.additions.get(name, ""),
        scopes=tuple(scope for scope in scopes if scope.bounds.counted),
        max_tokens=min((scope.bounds.max_tokens for scope in scopes if scope.bounds.max_tokens), default=0),
        route=route,
    )


def choose_backend(decision: Decision, route: Route, request: Request, is_ready: Callable[[str], bool]) -> Decision:
    """Which deployment of a route a request goes to, or waits for."""
    index = route.pick(request.path, is_ready)
    place = find_model(request.body)
    if index is None or place is None:
        message = "The `model` cannot be found in the body; write it plainly."
        return refused(decision, request, errors.bad_body(message, "invalid_model", "model"))
    return replace(
        decision,
        cluster=route.backends[index].cluster,
        via=route.cluster(index),
        model_at=f"{place[0]}:{place[1]}",
        wire=b"",
    )


def decide_models(table: Table, key: Key, method: str, path: str) -> Decision:
    """The list of models, one model, the caller's usage, or no path at all."""
    if path == USAGE_PATH and method == "GET":
        return Decision(
            "answered", cluster=ANSWER_CLUSTER, answer="usage", key=key.name, caller=key.caller, role=key.role
        )
    if path not in (MODELS_PATH, USAGE_PATH, OPENAPI_PATH) and not path.startswith(MODEL_PREFIX):
        return refuse(key, errors.unknown_url(method, path, SERVED))
    if method != "GET":
        return refuse(key, errors.method_not_allowed(method, path, "GET"))
    if path == OPENAPI_PATH:
        return Decision("answered", cluster=ANSWER_CLUSTER, answer="openapi", key=key.name)
    if path == MODELS_PATH:
        return Decision("answered", cluster=ANSWER_CLUSTER, answer="models", key=key.name, role=token_role(key))
    # Names may hold slashes, and clients encode them or not. Only the relay sees this path, and it goes by the name below.
    name = unquote(path[len(MODEL_PREFIX) :])
    model = table.by_name.get(name)
    if model is None or not table.may_use(key, model, name):
        return refuse(key, errors.model_not_found(name))
    return Decision("answered", cluster=ANSWER_CLUSTER, answer="model", model=model.name, requested=name, key=key.name)


def token_role(key: Key) -> str:
    """The role of whoever brought a token; nothing for a key."""
    return key.role if key.by_token else ""


def to_relay(key: Key, answer: str, model: Model, name: str) -> Decision:
    """Allowed towards the relay, which words the refusal."""
    return Decision(answer, cluster=ANSWER_CLUSTER, answer=answer, model=model.name, requested=name, key=key.name)


def answered_by_relay(decision: Decision, reason: str, **more: Any) -> Decision:
    """What was allowed after all ends at the relay."""
    return Decision(
        reason,
        cluster=ANSWER_CLUSTER,
        answer=reason,
        model=decision.model,
        requested=decision.requested,
        key=decision.key,
        user=decision.user,
        **more,
    )


def relayed(decision: Decision, problem: ApiProblem) -> Decision:
    """A refusal with a 5xx, of which ext_authz would lose the body."""
    made = answered_by_relay(decision, "problem", says=problem)
    made.reason = problem.code
    return made


def refused(decision: Decision, request: Request, problem: ApiProblem) -> Decision:
    """What was allowed after all is refused."""
    if problem.status >= 500:
        return relayed(decision, problem)
    endpoint = ENDPOINTS.get(request.path)
    return Decision(
        problem.code,
        problem=problem,
        key=decision.key,
        user=decision.user,
        model=decision.model,
        anthropic=endpoint is not None and endpoint.anthropic,
    )


def decide_again(table: Table, request: Request, name: str, now: float) -> Decision:
    """Whether a request that waits would still be let in, and where to."""
    key = find_caller(table, request, now)
    if isinstance(key, ApiProblem):
        return Decision(key.code, problem=key)
    return decide_route(table, key, name, request.path)


def refuse(key: Key, problem: ApiProblem, model: Model | None = None) -> Decision:
    """Refused, with a body."""
    return Decision(problem.code, problem=problem, key=key.name, model=model.name if model else "")


def unsupported(table: Table, key: Key, model: Model, name: str, path: str) -> ApiProblem:
    """Says what the model is good for, and which of the caller's models would do."""
    instead = ", ".join(known for known in ENDPOINTS if known in model.paths) or "no path"
    others = [other for other, which in table.visible(key) if path in which.paths][:5]
    use = " or ".join(map(errors.quote, others))
    return errors.unsupported_endpoint(name, model.task, path, instead, use, ENDPOINTS[path].needs)


class BadBody(Exception):
    """The body does not name a model."""

    def __init__(self, problem: ApiProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _TwoModels(dict[str, Any]):
    """An object with two members called model."""


def read_json_model(request: Request) -> str:
    """The `model` of a JSON body, which stays with the request for those who need more of it."""
    request.document = read_document(request.body)
    name = request.document.get("model")
    if name is None:
        _bad("You must provide a `model`; GET /v1/models lists yours.", "missing_model", "model")
    if not isinstance(name, str):
        _bad("`model` must be a string.", "invalid_model", "model")
    return name


def read_document(body: bytes) -> dict[str, Any]:
    """A JSON body; BadBody for whatever another parser might read differently, so that the engine cannot."""
    if not body:
        _bad("The request body is empty; send a JSON object with a `model`.")
    if b"\0" in body:
        _bad("The request body holds NUL bytes; send JSON in UTF-8, not compressed.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        _bad("The request body is not UTF-8; send JSON in UTF-8, not compressed.")
    # Two members of one name are rare and parsers differ on them. Without a second "model" and without \u, by which
    # a name can be written differently, there cannot be two, and the fast parser does.
    suspicious = "\\u" in text or text.count('"model"') > 1
    try:
        document = (_CAREFUL if suspicious else _FAST).decode(text)
    except RecursionError:
        _bad("The request body is nested too deeply.")
    except ValueError as error:
        _bad(f"The request body is not valid JSON: {error}.")
    if not isinstance(document, dict):
        _bad("The request body is not a JSON object.", "invalid_body")
    if type(document) is _TwoModels:
        _bad("The request body has more than one `model`.", "duplicate_model", "model")
    return document


def read_form_model(request: Request) -> str:
    """The `model` of a form."""
    try:
        name = read_form_field(request.content_type, request.body, "model")
    except BadForm as bad:
        _bad(f"The request body is not a form that can be routed: {bad}.", "invalid_body")
    if name is None:
        _bad(
            "You must provide a `model`, as a field of the form; GET /v1/models lists yours.", "missing_model", "model"
        )
    return name


def _bad(message: str, code: str = "invalid_json", param: str | None = None) -> NoReturn:
    raise BadBody(errors.bad_body(message, code, param)) from None


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs) and sum(name == "model" for name, _ in pairs) > 1:
        return _TwoModels(members)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads with options makes a decoder each time, for a third of the whole parse.
_FAST = json.JSONDecoder(parse_constant=_no_constant)
_CAREFUL = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object_of)
