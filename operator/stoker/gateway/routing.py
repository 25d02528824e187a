"""Routes: one served name for several deployments, by weight, with others to fall back on. Pure.

Which deployment a request goes to first is decided here, request by request; what comes after it, when it cannot be reached or says
503 before its first byte, is Envoy's matter (envoy.composite). Which replica of a deployment is decided after this.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

ROUTE_PREFIX = "route/"
"""Of the names of Envoy's clusters; no namespace is called like it with two slashes."""
EXTERNAL_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"})
"""What an external backend is asked for; whether it serves it is its own matter."""
FURTHER_EXTERNAL_PATHS = frozenset(
    {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech", "/v1/images/generations"}
)
"""And these, where a model of ours on the same route serves them."""


@dataclass(frozen=True, slots=True)
class External:
    """An OpenAI-compatible API outside of Stoker."""

    host: str
    port: int
    tls: bool
    prefix: str
    """What stands before /v1 in its address; often nothing."""
    key: str
    """Its bearer token; empty where it wants none."""


@dataclass(frozen=True, slots=True)
class Known:
    """A deployment of ours, as far as routes ask."""

    cluster: str
    paths: frozenset[str]
    engine_key: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where requests of a route may go."""

    model: str
    """What the backend knows its model by: the body is changed to it."""
    cluster: str
    """Of a deployment of ours; empty for one outside."""
    paths: frozenset[str]
    external: External | None = None
    weight: int = 0
    """Share of the requests; 0 for one to fall back on."""
    engine_key: str = ""
    """What its engine asks for; empty where it asks for nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """A served name with its backends."""

    name: str
    backends: tuple[Backend, ...]
    """Those with a weight first, then those to fall back on in their order."""

    @property
    def paths(self) -> frozenset[str]:
        """What any of them serves."""
        return frozenset().union(*(backend.paths for backend in self.backends))

    def cluster(self, index: int) -> str:
        """Envoy's name for: this backend first."""
        return f"{ROUTE_PREFIX}{self.name}/{index}"

    def tries(self, index: int) -> list[int]:
        """Whom to ask, one after the other, when this backend comes first."""
        return [index, *(later for later in range(index + 1, len(self.backends)) if not self.backends[later].weight)]

    def pick(
        self, path: str, is_ready: Callable[[str], bool], chance: Callable[[], float] = random.random
    ) -> int | None:
        """The backend to begin with: by weight among those that are ready, else the first to fall back on that is ready, else by weight
        whoever is asked for it has to wake it. None where no backend serves the path."""
        serving = [(index, backend) for index, backend in enumerate(self.backends) if path in backend.paths]
        ready = [(index, backend) for index, backend in serving if backend.external or is_ready(backend.cluster)]
        weighted = [pair for pair in ready if pair[1].weight]
        if not weighted and ready:
            return ready[0][0]
        candidates = weighted or [pair for pair in serving if pair[1].weight] or serving
        if not candidates:
            return None
        left = chance() * sum(backend.weight or 1 for _, backend in candidates)
        for index, backend in candidates:
            left -= backend.weight or 1
            if left < 0:
                return index
        return candidates[-1][0]


def parse_routes_of(entries: Iterable[Any], known: Callable[[str], Known | None]) -> tuple[Route, ...]:
    """Routes of routes.json; `known` tells of a model. A backend that is not there is left out, and a route without any."""
    found = []
    for entry in entries:
        backends = [backend for given in entry["backends"] if (backend := _parse_backend(given, known)) is not None]
        ours = frozenset().union(*(backend.paths for backend in backends if backend.cluster))
        more = ours & FURTHER_EXTERNAL_PATHS
        backends = [replace(one, paths=one.paths | more) if one.external else one for one in backends]
        if backends:
            # Stable: each kind stays in its own order.
            ordered = sorted(backends, key=lambda backend: backend.weight == 0)
            found.append(Route(entry["name"], tuple(ordered)))
    return tuple(found)


def _parse_backend(entry: Mapping[str, Any], known: Callable[[str], Known | None]) -> Backend | None:
    name, weight = entry["model"], int(entry.get("weight") or 0)
    if "\r" in name or "\n" in name or '"' in name or "\\" in name or not name:
        raise ValueError(f"{name!r} is no name of a model")
    if (url := entry.get("url")) is None:
        model = known(name)
        return Backend(name, model.cluster, model.paths, None, weight, model.engine_key) if model else None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.rstrip("/").endswith("/v1"):
        raise ValueError(f"{url!r} is not an address like https://HOST/v1")
    tls = parts.scheme == "https"
    external = External(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/").removesuffix("/v1"),
        key=str(entry.get("key") or ""),
    )
    return Backend(name, "", EXTERNAL_PATHS, external, weight)


def find_model(body: bytes) -> tuple[int, int] | None:
    """Where in a JSON body the name of its model stands, between its quotation marks: first byte and length.

    The body has been read already, and there is one member `model` with a text. None where it cannot be found all the same, as behind
    something that is nested deeper than this parser goes.
    """
    try:
        return _find_model(body)
    except RecursionError:
        return None


def _find_model(body: bytes) -> tuple[int, int] | None:
    text = body.decode()
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        return None
    at += 1
    while (at := _skip(text, at)) < len(text) and text[at] == '"':
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            return None
        at = _skip(text, at + 1)
        value, end = decoder.raw_decode(text, at)
        if name == "model" and isinstance(value, str):
            start = len(text[: at + 1].encode())
            return start, len(text[at + 1 : end - 1].encode())
        at = _skip(text, end)
        if text[at : at + 1] != ",":
            return None
        at += 1
    return None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
