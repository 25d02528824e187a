"""The decision: headers and body in, allow or refuse out. Pure, and free of any transport.

What the gateway itself answers with a 5xx or with a body of its own is *allowed* towards the relay: ext_authz would replace a 5xx
of ours by an empty 503 (docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from stoker.gateway import ollama
from stoker.gateway import openai_errors as errors
from stoker.gateway.bodies import BadBody, is_given_twice, read_form_model, read_json_model
from stoker.gateway.callers import find_caller
from stoker.gateway.decision import ALLOWED, ANSWER_CLUSTER, Decision, Request
from stoker.gateway.endpoints import ENDPOINTS, Endpoint, dialect_of
from stoker.gateway.multipart import find_form_field
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.openapi import OPENAPI_PATH
from stoker.gateway.routing import Route, find_model
from stoker.gateway.table import Key, Model, Table

ADAPTER_MEMBERS = frozenset({"lora", "lora_path"})
"""By which llama.cpp and SGLang are told an adapter."""
CACHE_ENTRIES = 20_000
MODELS_PATH = "/v1/models"
MODEL_PREFIX = MODELS_PATH + "/"
USAGE_PATH = "/v1/usage"
OWN_PATHS = (MODELS_PATH, f"{MODEL_PREFIX}MODEL", ollama.TAGS_PATH, USAGE_PATH, OPENAPI_PATH)
SERVED = ", ".join([*(f"POST {path}" for path in ENDPOINTS), *(f"GET {path}" for path in OWN_PATHS)])


def decide(table: Table, request: Request, now: float) -> Decision:
    """Who calls, may he, and where does it go?"""
    path = request.target.partition("?")[0]
    endpoint = ENDPOINTS.get(path)
    decision = decide_path(table, request, path, endpoint, now)
    if decision.problem is not None and endpoint is not None and endpoint.dialect != "openai":
        decision.dialect = endpoint.dialect
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
    if endpoint.dialect == "ollama":
        twice = is_given_twice(request.body, "options")
        if (problem := ollama.check_members(request.document, options_twice=twice)) is not None:
            return refuse(key, problem)
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


def decide_route(table: Table, key: Key, name: str, path: str) -> Decision:
    """A request for a model goes to its replicas, or to the relay, which says why not."""
    model = table.by_name.get(name)
    if model is None or not table.may_use(key, model, name):
        if model is not None and key.service is not None and table.may_use(key.service, model, name):
            # The service shows it to all its people, so there is nothing to hide; and this one should know whom to ask.
            return refuse(key, errors.model_not_allowed(key.user, key.role, name), model)
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
    if taken := sorted(ADAPTER_MEMBERS.intersection(request.document)):
        # What an adapter's request needs is not added on this way, and so not written over either.
        return refused(decision, request, errors.adapter_by_member(taken[0]))
    index = route.pick(request.path, is_ready)
    place = find_name(request)
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


def find_name(request: Request) -> tuple[int, int] | None:
    """Where in the body the model's name stands: first byte and length."""
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None or not endpoint.multipart:
        return find_model(request.body)
    return find_form_field(request.content_type, request.body, "model")


def decide_models(table: Table, key: Key, method: str, path: str) -> Decision:
    """The list of models, one model, the caller's usage, or no path at all; the same for all people of a service, which asks once for all."""
    key = key.service or key
    if path == USAGE_PATH and method == "GET":
        return Decision(
            "answered", cluster=ANSWER_CLUSTER, answer="usage", key=key.name, caller=key.caller, role=key.role
        )
    if path not in (MODELS_PATH, USAGE_PATH, OPENAPI_PATH, ollama.TAGS_PATH) and not path.startswith(MODEL_PREFIX):
        return refuse(key, errors.unknown_url(method, path, SERVED))
    if method != "GET":
        return refuse(key, errors.method_not_allowed(method, path, "GET"))
    if path == OPENAPI_PATH:
        return Decision("answered", cluster=ANSWER_CLUSTER, answer="openapi", key=key.name)
    if path in (MODELS_PATH, ollama.TAGS_PATH):
        answer = "models" if path == MODELS_PATH else "tags"
        return Decision("answered", cluster=ANSWER_CLUSTER, answer=answer, key=key.name, role=token_role(key))
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
    return Decision(
        problem.code,
        problem=problem,
        key=decision.key,
        user=decision.user,
        model=decision.model,
        dialect=dialect_of(request.path),
    )


def decide_again(table: Table, request: Request, name: str, now: float) -> Decision:
    """Whether a request that waits would still be let in, and where to."""
    key = find_caller(table, request, now)
    if isinstance(key, ApiProblem):
        return Decision(key.code, problem=key)
    return decide_route(table, key, name, request.path)


def refuse(key: Key, problem: ApiProblem, model: Model | None = None) -> Decision:
    """Refused, with a body."""
    user = key.user if key.service else ""
    return Decision(problem.code, problem=problem, key=key.name, user=user, model=model.name if model else "")


def unsupported(table: Table, key: Key, model: Model, name: str, path: str) -> ApiProblem:
    """Says what the model is good for, and which of the caller's models would do."""
    instead = ", ".join(known for known in ENDPOINTS if known in model.paths) or "no path"
    others = [other for other, which in table.visible(key) if path in which.paths][:5]
    use = " or ".join(map(errors.quote, others))
    return errors.unsupported_endpoint(name, model.task, path, instead, use, ENDPOINTS[path].needs)
