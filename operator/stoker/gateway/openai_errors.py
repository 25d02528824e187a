"""Errors as OpenAI words them, and for their paths as Anthropic and Ollama do: clients raise their typed exceptions from status, type and code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.gateway.endpoints import Dialect

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
LONGEST_QUOTE = 128
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True)
class ApiProblem:
    """One refusal: what the client gets, and its code as the reason in log and metrics."""

    status: int
    code: str
    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    loading: Mapping[str, object] | None = None
    """How far the model's start is; a member of the error object that only ours have."""

    @property
    def body(self) -> bytes:
        """OpenAI's error object."""
        return self._encode(error_object(self.message, self.type, self.code, self.param))

    def body_in(self, dialect: Dialect) -> bytes:
        """The same in the words of an API."""
        if dialect == "openai":
            return self.body
        if dialect == "ollama":
            return json.dumps(ollama_error_object(self.message), separators=(",", ":")).encode()
        return self._encode(anthropic_error_object(self.message, self.status))

    def _encode(self, document: Mapping[str, Any]) -> bytes:
        if self.loading is not None:
            document["error"]["loading"] = self.loading
        return json.dumps(document, separators=(",", ":")).encode()


def anthropic_error_object(message: str, status: int) -> dict[str, object]:
    """The shape that Anthropic's clients know."""
    kind = ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else INVALID_REQUEST)
    return {"type": "error", "error": {"type": kind, "message": message}}


def ollama_error_object(message: str) -> dict[str, object]:
    """The shape that Ollama's clients know."""
    return {"error": message}


def error_object(message: str, kind: str, code: str, param: str | None = None) -> dict[str, dict[str, str | None]]:
    """The shape every OpenAI client knows."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def quote(name: str) -> str:
    """A client's own word inside a message, cut to a readable length."""
    return f"`{name if len(name) <= LONGEST_QUOTE else name[:LONGEST_QUOTE] + '…'}`"


def missing_key() -> ApiProblem:
    """No usable Authorization header."""
    return ApiProblem(
        401,
        "invalid_api_key",
        "You did not provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY' "
        "(to /v1/messages also in 'x-api-key: YOUR_KEY'); "
        "whoever runs this gateway gives you one (an ApiKey object, its Secret holds the key).",
        headers=(("www-authenticate", 'Bearer realm="stoker"'),),
    )


def wrong_key() -> ApiProblem:
    """A key of no one, or of someone whose ApiKey is gone, suspended or expired."""
    return ApiProblem(
        401,
        "invalid_api_key",
        "Incorrect API key provided: it is unknown, expired or suspended. Ask whoever runs this gateway "
        "(kubectl get apikeys shows which keys are let in).",
        headers=(("www-authenticate", 'Bearer realm="stoker", error="invalid_token"'),),
    )


UNKNOWN_SIGNING_KEY = "unknown_signing_key"


def wrong_token(why: str, code: str = "invalid_token") -> ApiProblem:
    """A JSON Web Token that is not good."""
    return ApiProblem(
        401,
        code,
        f"Your token is not accepted: {why}. Get a new one from your identity provider, or use an API key.",
        headers=(("www-authenticate", 'Bearer realm="stoker", error="invalid_token"'),),
    )


ASK_ABOUT_TOKEN = "ask_about_token"


def token_unchecked() -> ApiProblem:
    """Perhaps good: nobody could be asked."""
    return ApiProblem(
        401,
        "token_not_checked",
        "Your token could not be checked: its issuer does not answer at the moment, or is asked too often. Try again in a few seconds, or use an API key.",
        headers=(("retry-after", "5"),),
    )


UNASKED = token_unchecked()
"""What is said of a token that nobody was asked about yet, when nobody can be."""


def wrong_user_token(why: str) -> ApiProblem:
    """A good key, but what it says of its user is not."""
    return ApiProblem(
        401,
        "invalid_user_token",
        f"The header X-OpenWebUI-User-Jwt is not accepted: {why}. It must be signed with the secret that spec.userTokens of the ApiKey names.",
    )


def person_without_role(user: str, role: str) -> ApiProblem:
    """Somebody for whom a service calls, and who is nobody here."""
    return ApiProblem(
        403,
        "no_role",
        f"{user} may not use any model here: {quote(role)}, as the service calls him, is not a role of this gateway. "
        "Whoever runs it names people and groups in spec.roles[].subjects of the ApiGateway; who waits in the web chat is let in by its admin.",
    )


def model_not_allowed(user: str, role: str, name: str) -> ApiProblem:
    """A model that the service shows to everybody, and this person may not use."""
    return ApiProblem(
        403,
        "model_not_allowed",
        f"{user} may not use the model {quote(name)}: the role {quote(role)} does not include it. Choose another model, or ask whoever "
        "runs this gateway (spec.roles of the ApiGateway says who may use which).",
        param="model",
    )


def no_role(role: str) -> ApiProblem:
    """A good token of somebody who has no business here."""
    why = (
        f"its role {quote(role)} is not one of this gateway's"
        if role
        else "none of its roles or groups has a role here"
    )
    return ApiProblem(
        403,
        "no_role",
        f"Your token is good, but {why}. Whoever runs the gateway maps them in spec.auth.jwt[].roleMap, or names users and groups in spec.roles[].subjects.",
    )


def unknown_url(method: str, path: str, known: str) -> ApiProblem:
    """A path that is not on the list of what is let through."""
    return ApiProblem(404, "unknown_url", f"Unknown request URL: {method} {quote(path)}. This gateway serves {known}.")


def method_not_allowed(method: str, path: str, allowed: str) -> ApiProblem:
    """A known path, asked in the wrong way."""
    return ApiProblem(
        405,
        "method_not_allowed",
        f"{quote(path)} is called with {allowed}, not {quote(method)}.",
        headers=(("allow", allowed),),
    )


def bad_body(message: str, code: str = "invalid_json", param: str | None = None) -> ApiProblem:
    """A body that cannot be routed; the message says what is wrong with it."""
    return ApiProblem(400, code, message, param=param)


def adapter_by_member(member: str) -> ApiProblem:
    """Adapters are models of their own here, which a key may use or not."""
    return bad_body(
        f"`{member}` is not taken here: ask for the adapter by its name as `model`; GET /v1/models lists yours.",
        "unsupported_option",
        member,
    )


def not_a_count(member: str) -> ApiProblem:
    """A number of answers that engines could read differently."""
    return bad_body(f"`{member}` must be a whole number from 1 on.", "invalid_body", member)


def model_not_found(name: str) -> ApiProblem:
    """No such model, or not for this key: the answer is the same on purpose."""
    return ApiProblem(
        404,
        "model_not_found",
        f"The model {quote(name)} does not exist or you do not have access to it. GET /v1/models lists your models.",
        param="model",
    )


def unsupported_endpoint(name: str, task: str, path: str, instead: str, others: str, needs: str) -> ApiProblem:
    """The model is there, but not for this path."""
    hint = f" For {path} use {others}." if others else f" No model of yours serves {path}: it takes {needs}."
    return ApiProblem(
        404,
        "unsupported_endpoint",
        f"The model {quote(name)} (task {task}) does not serve {path}; it serves {instead}.{hint}",
        param="model",
    )


def rate_limited(who: str, limit: int, retry_after: int, headers: tuple[tuple[str, str], ...]) -> ApiProblem:
    """More requests in a minute than the caller may make."""
    return ApiProblem(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: {who} may make {limit} requests per minute at this replica of the gateway. "
        f"Try again in {retry_after} s, or ask whoever runs the gateway for a higher limit.",
        "requests",
        headers=(("retry-after", str(retry_after)), *headers),
    )


def too_many_tokens(
    who: str, limit: int, asked: int, retry_after: int, headers: tuple[tuple[str, str], ...]
) -> ApiProblem:
    """More tokens in a minute than the caller may use."""
    return ApiProblem(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: {who} may use {limit} tokens per minute at this replica of the gateway, and this prompt has about {asked}. "
        f"Try again in {retry_after} s, send less, or ask whoever runs the gateway for a higher limit.",
        "tokens",
        headers=(("retry-after", str(retry_after)), *headers),
    )


def too_many_at_once(who: str, limit: int, headers: tuple[tuple[str, str], ...]) -> ApiProblem:
    """More requests at the same time than the caller may have."""
    return ApiProblem(
        429,
        "concurrent_requests_exceeded",
        f"Rate limit reached: {who} may have {limit} requests at the same time at this replica of the gateway. "
        "Try again when one of them has ended, or ask whoever runs the gateway for a higher limit.",
        "requests",
        headers=(("retry-after", "1"), *headers),
    )


def max_tokens_refused(field: str, value: object, limit: int, answers: int) -> ApiProblem:
    """A request that wants more tokens than it may have."""
    given = quote(json.dumps(value)) if value is not None else "not given"
    each = f", over {answers} answers together" if answers > 1 else ""
    return ApiProblem(
        400,
        "max_tokens_exceeded",
        f"{quote(field)} is {given}, and a request of yours may have from 1 to {limit} tokens generated{each}. "
        f"Ask for less, leave it out, or ask whoever runs the gateway for a higher maxTokensPerRequest.",
        param=field,
    )


def model_stopped(name: str) -> ApiProblem:
    """Scaled to zero by its owner."""
    return ApiProblem(
        503,
        "model_stopped",
        f"The model {quote(name)} is stopped: its ModelDeployment has replicas 0. It answers again after "
        "kubectl scale modeldeployment --replicas=1.",
        SERVER_ERROR,
        param="model",
        headers=(("retry-after", "60"),),
    )


def model_not_ready(name: str) -> ApiProblem:
    """Published, but no replica is ready."""
    return ApiProblem(
        503,
        "model_not_ready",
        f"The model {quote(name)} has no ready replica at the moment. Try again shortly; "
        "kubectl get modeldeployments says what it waits for.",
        SERVER_ERROR,
        param="model",
        headers=(("retry-after", "10"),),
    )


def model_loading(name: str, loading: Mapping[str, object], waited: float, retry_after: int) -> ApiProblem:
    """Being started, and the caller's patience is at its end, or the model's owner has others called back later."""
    progress = loading.get("progress")
    how_far = f"{loading['phase']}, {progress:.0%}" if isinstance(progress, float) else str(loading["phase"])
    so_far = f" It was not ready within {waited:.0f} s." if waited else ""
    return ApiProblem(
        503,
        "model_loading",
        f"The model {quote(name)} is being started ({how_far}).{so_far} Try again in {retry_after} s.",
        SERVER_ERROR,
        param="model",
        headers=(("retry-after", str(retry_after)),),
        loading=loading,
    )


def model_failed(name: str, why: str, retry_after: int) -> ApiProblem:
    """Nobody need wait for it: somebody has to put something right first."""
    return ApiProblem(
        503,
        "model_failed",
        f"The model {quote(name)} cannot be started: {why or 'its ModelDeployment says why'}. "
        "kubectl get modeldeployments shows it to whoever runs it.",
        SERVER_ERROR,
        param="model",
        headers=(("retry-after", str(retry_after)),),
    )


def busy_too_long(name: str, waited: float, retry_after: int) -> ApiProblem:
    """All places were taken for as long as a request may wait."""
    return ApiProblem(
        503,
        "model_busy",
        f"All replicas of the model {quote(name)} were busy for {waited:.0f} s. Try again in {retry_after} s.",
        SERVER_ERROR,
        param="model",
        headers=(("retry-after", str(retry_after)),),
    )


def queue_full(name: str, most: int, retry_after: int) -> ApiProblem:
    """As many wait as may."""
    return ApiProblem(
        429,
        "queue_full",
        f"{most} requests wait for the model {quote(name)} already, and no more are held at this replica of the gateway "
        f"(coldStart.maxHeldRequests of its ModelDeployment). Try again in {retry_after} s.",
        "requests",
        param="model",
        headers=(("retry-after", str(retry_after)),),
    )
