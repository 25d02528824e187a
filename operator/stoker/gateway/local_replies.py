"""What Envoy says by itself, in OpenAI's words, Anthropic's or Ollama's: refused bytes, a policy that is away, an engine that cannot be reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stoker.gateway import openai_errors as errors
from stoker.gateway.endpoints import ANTHROPIC_PREFIX, OLLAMA_PREFIX

Document = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One kind of local reply."""

    match: Document
    message: str
    code: str
    kind: str = errors.INVALID_REQUEST
    status: int | None = None
    """Another status than Envoy's own."""
    likely_status: int = 503
    """What Envoy's own is, for the word that Anthropic has for it."""
    retry_after: int | None = None


def _flags(*flags: str) -> Document:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(op: str, code: int) -> Document:
    # Envoy wants a runtime key to override the number with; nothing sets this one.
    return {
        "status_code_filter": {
            "comparison": {"op": op, "value": {"default_value": code, "runtime_key": "stoker.never_set"}}
        }
    }


REPLIES = (
    Reply(
        _flags("UAEX"),
        "The gateway cannot check your request at the moment (its policy service does not answer). Try again.",
        "policy_unavailable",
        errors.SERVER_ERROR,
        status=503,
        retry_after=1,
    ),
    Reply(
        _status("EQ", 413),
        "The request body is larger than this gateway takes. Send less, or have spec.limits.maxRequestBytes of "
        "the ApiGateway raised.",
        "request_too_large",
        likely_status=413,
    ),
    Reply(_status("EQ", 431), "The request headers are too large or too many.", "headers_too_large", likely_status=431),
    Reply(
        _flags("UH"),
        "The model has no ready replica at the moment. Try again shortly.",
        "model_not_ready",
        errors.SERVER_ERROR,
        retry_after=10,
    ),
    Reply(
        _flags("UF", "UC", "UO", "UR", "URX", "LR", "UPE", "NC"),
        "The model's engine broke off or could not be reached. Try again.",
        "model_unavailable",
        errors.SERVER_ERROR,
        retry_after=2,
    ),
    # Out of memory carries no flag, only the details "overload"; no other 503 is left here.
    Reply(
        _status("EQ", 503),
        "The gateway takes no new requests at the moment (%RESPONSE_CODE_DETAILS%). Try again shortly.",
        "gateway_overloaded",
        errors.SERVER_ERROR,
        retry_after=5,
    ),
    Reply(
        {"or_filter": {"filters": [_status("EQ", 504), _status("EQ", 408)]}},
        "The request took too long: %RESPONSE_CODE_DETAILS%.",
        "timeout",
        errors.SERVER_ERROR,
        likely_status=504,
    ),
    Reply(
        _status("GE", 500),
        "The gateway could not serve the request: %RESPONSE_CODE_DETAILS%.",
        "gateway_error",
        errors.SERVER_ERROR,
        likely_status=500,
    ),
)
"""The first that fits words the answer."""

REFUSED = Reply(
    _status("GE", 0), "The gateway refused the request: %RESPONSE_CODE_DETAILS%.", "bad_request", likely_status=400
)
"""Whatever else Envoy says."""


def local_reply_config() -> Document:
    """Mappers in order. A refusal by the policy passes as it is: it has its body already."""
    passed_on = {
        "filter": {"and_filter": {"filters": [_flags("UAEX"), _status("LE", 499)]}},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
    return {
        "mappers": [
            passed_on,
            *(
                _mapper(_under(ANTHROPIC_PREFIX, reply.match), reply, _anthropic(reply))
                for reply in (*REPLIES, REFUSED)
            ),
            *(_mapper(_under(OLLAMA_PREFIX, reply.match), reply, _ollama(reply)) for reply in (*REPLIES, REFUSED)),
            *(_mapper(reply.match, reply, _openai(reply)) for reply in REPLIES),
        ],
        "body_format": _openai(REFUSED),
    }


def _mapper(match: Document, reply: Reply, body: Document) -> Document:
    mapper: Document = {"filter": match, "body_format_override": body}
    if reply.status is not None:
        mapper["status_code"] = reply.status
    if reply.retry_after is not None:
        mapper["headers_to_add"] = [
            {
                "header": {"key": "retry-after", "value": str(reply.retry_after)},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    return mapper


def _under(prefix: str, match: Document) -> Document:
    path = {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": prefix}}}}
    return {"and_filter": {"filters": [path, match]}}


def _openai(reply: Reply) -> Document:
    return _json(errors.error_object(reply.message, reply.kind, reply.code))


def _anthropic(reply: Reply) -> Document:
    return _json(errors.anthropic_error_object(reply.message, reply.status or reply.likely_status))


def _ollama(reply: Reply) -> Document:
    return _json(errors.ollama_error_object(reply.message))


def _json(content: object) -> Document:
    return {"json_format": content, "content_type": "application/json"}
