"""What the gateway serves, as an OpenAPI document: the same for every gateway, and kept in docs/reference.

Of a request it says only what the gateway itself asks for. The rest is the engine's matter, and engines differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.gateway.endpoints import ENDPOINTS, Dialect, Endpoint
from stoker.gateway.ollama import TAGS_PATH

Document = dict[str, Any]

OPENAPI_PATH = "/openapi.json"

STATUSES = {
    400: "The body cannot be read or routed; or it is not HTTP as it should be",
    401: "No key or token, or not a good one",
    403: "A good token of somebody who has no role here",
    404: "No such model for this key, or it does not serve this path",
    408: "The request did not arrive in time",
    413: "The body is larger than spec.limits.maxRequestBytes",
    429: "A limit of the caller's, or of the model's queue, is reached",
    431: "The headers are too large or too many",
    503: "The model is stopped, loading or cannot be reached; Retry-After says when to come back",
    504: "The engine took too long",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
OLLAMA_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
ERRORS: Mapping[Dialect, str] = {"openai": "Error", "anthropic": "AnthropicError", "ollama": "OllamaError"}
TAGS = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "model", "modified_at"],
                "properties": {name: {"type": "string"} for name in ("name", "model", "modified_at")},
            },
        }
    },
}
MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
    },
}
MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    },
}
USAGE = {
    "type": "object",
    "required": ["object", "from", "to", "data", "total", "truncated"],
    "properties": {
        "object": {"const": "list"},
        "from": {"type": "string"},
        "to": {"type": "string"},
        "data": {"type": "array", "items": {"type": "object"}},
        "total": {"type": "object", "additionalProperties": {"type": "integer"}},
        "truncated": {"type": "boolean"},
    },
}
USAGE_PARAMETERS = {
    "from": "First day, such as 2026-01-31",
    "to": "Last day",
    "by": "What sums are by: day, key, user, model, with commas",
    "model": "Only this model",
    "key": "Only this key",
    "user": "Only this user",
    "format": "json or csv",
}


def build_document() -> Document:
    """The document, in a fixed order."""
    paths = {path: {"post": _call(path, endpoint)} for path, endpoint in ENDPOINTS.items()}
    paths["/v1/models"] = {"get": _read("listModels", "The models that the caller may use", "ModelList")}
    one = _read("getModel", "One of them", "Model", 404)
    one["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    ]
    paths["/v1/models/{model}"] = {"get": one}
    paths[TAGS_PATH] = {"get": _read("listTags", "The models that can be asked in Ollama's shape", "Tags")}
    usage = _read("getUsage", "What the caller has used, as JSON or CSV", "Usage", 404)
    usage["parameters"] = [
        {"name": name, "in": "query", "description": words, "schema": {"type": "string"}}
        for name, words in USAGE_PARAMETERS.items()
    ]
    usage["responses"]["200"]["content"]["text/csv"] = {}
    paths["/v1/usage"] = {"get": usage}
    paths[OPENAPI_PATH] = {"get": _read("getOpenApi", "This document", None)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stoker gateway",
            "version": "v1",
            "description": "The OpenAI-compatible API of an ApiGateway. A path is open for models whose task and engine serve it. What a "
            "request may hold besides its model is the engine's matter.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a token of a trusted issuer",
                },
                "anthropicKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {
                "Error": ERROR,
                "AnthropicError": ANTHROPIC_ERROR,
                "OllamaError": OLLAMA_ERROR,
                "Tags": TAGS,
                "Model": MODEL,
                "ModelList": MODELS,
                "Usage": USAGE,
            },
        },
    }


def _call(path: str, endpoint: Endpoint) -> Document:
    streamed = "application/x-ndjson" if endpoint.dialect == "ollama" else "text/event-stream"
    described: Document = {
        "operationId": path.strip("/").removeprefix("v1/").replace("/", "_"),
        "summary": f"Goes to {endpoint.needs}",
        "requestBody": {"required": True, "content": _request(endpoint)},
        "responses": {
            "200": {"description": "The engine's answer", "content": {"application/json": {}, streamed: {}}},
            **_errors(ERRORS[endpoint.dialect], STATUSES),
        },
    }
    if endpoint.dialect == "anthropic":
        described["security"] = [{"key": []}, {"anthropicKey": []}]
    return described


def _request(endpoint: Endpoint) -> Document:
    model = {"type": "string", "description": "A served name or alias; GET /v1/models lists them"}
    if endpoint.multipart:
        properties = {"model": model, "file": {"type": "string", "format": "binary"}}
        # Fields with other names could be read differently by another parser, and are refused.
        names = {"pattern": "^[A-Za-z0-9_.-]+(\\[[A-Za-z0-9_.-]*\\])*$"}
        form = {"type": "object", "required": ["model"], "properties": properties, "propertyNames": names}
        return {"multipart/form-data": {"schema": form}}
    properties = {"model": model}
    return {"application/json": {"schema": {"type": "object", "required": ["model"], "properties": properties}}}


def _read(name: str, summary: str, schema: str | None, *more: int) -> Document:
    content: Document = {"schema": {"$ref": f"#/components/schemas/{schema}"}} if schema else {}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": {"application/json": content}},
            **_errors("Error", (400, 401, 403, 408, 431, 503, *more)),
        },
    }


def _errors(schema: str, statuses: Any) -> Document:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {str(status): {"description": STATUSES[status], "content": content} for status in sorted(statuses)}
