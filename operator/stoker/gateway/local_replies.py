"""What Envoy says by itself, in OpenAI's words: refused bytes, a policy that is away, an engine that cannot be reached."""

from __future__ import annotations

from typing import Any

from stoker.gateway import openai_errors as errors

Document = dict[str, Any]


def local_reply_config() -> Document:
    """Mappers in order; the first that fits words the answer. A refusal by the policy passes as it is: it has its body already."""
    return {
        "mappers": [
            {
                "filter": {"and_filter": {"filters": [_flags("UAEX"), _status("LE", 499)]}},
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            },
            _mapper(
                _flags("UAEX"),
                "The gateway cannot check your request at the moment (its policy service does not answer). Try again.",
                "policy_unavailable",
                errors.SERVER_ERROR,
                status=503,
                retry_after=1,
            ),
            _mapper(
                _status("EQ", 413),
                "The request body is larger than this gateway takes. Send less, or have spec.limits.maxRequestBytes of "
                "the ApiGateway raised.",
                "request_too_large",
            ),
            _mapper(
                _status("EQ", 431),
                "The request headers are too large or too many.",
                "headers_too_large",
            ),
            _mapper(
                _flags("UH"),
                "The model has no ready replica at the moment. Try again shortly.",
                "model_not_ready",
                errors.SERVER_ERROR,
                retry_after=10,
            ),
            _mapper(
                _flags("UF", "UC", "UO", "UR", "URX", "LR", "UPE", "NC"),
                "The model's engine broke off or could not be reached. Try again.",
                "model_unavailable",
                errors.SERVER_ERROR,
                retry_after=2,
            ),
            # Out of memory carries no flag, only the details "overload"; no other 503 is left here.
            _mapper(
                _status("EQ", 503),
                "The gateway takes no new requests at the moment (%RESPONSE_CODE_DETAILS%). Try again shortly.",
                "gateway_overloaded",
                errors.SERVER_ERROR,
                retry_after=5,
            ),
            _mapper(
                {"or_filter": {"filters": [_status("EQ", 504), _status("EQ", 408)]}},
                "The request took too long: %RESPONSE_CODE_DETAILS%.",
                "timeout",
                errors.SERVER_ERROR,
            ),
            _mapper(
                _status("GE", 500),
                "The gateway could not serve the request: %RESPONSE_CODE_DETAILS%.",
                "gateway_error",
                errors.SERVER_ERROR,
            ),
        ],
        "body_format": _shaped(
            "The gateway refused the request: %RESPONSE_CODE_DETAILS%.", "bad_request", errors.INVALID_REQUEST
        ),
    }


def _mapper(
    match: Document,
    message: str,
    code: str,
    kind: str = errors.INVALID_REQUEST,
    *,
    status: int | None = None,
    retry_after: int | None = None,
) -> Document:
    mapper: Document = {"filter": match, "body_format_override": _shaped(message, code, kind)}
    if status is not None:
        mapper["status_code"] = status
    if retry_after is not None:
        mapper["headers_to_add"] = [
            {
                "header": {"key": "retry-after", "value": str(retry_after)},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    return mapper


def _shaped(message: str, code: str, kind: str) -> Document:
    return {"json_format": errors.error_object(message, kind, code), "content_type": "application/json"}


def _flags(*flags: str) -> Document:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(op: str, code: int) -> Document:
    # Envoy wants a runtime key to override the number with; nothing sets this one.
    return {
        "status_code_filter": {
            "comparison": {"op": op, "value": {"default_value": code, "runtime_key": "stoker.never_set"}}
        }
    }
