"""Routes of an ApiGateway: one served name for several models."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.base import SERVICE_URL, ApiModel, Cel, LocalObjectReference


class WeightedModel(ApiModel):
    """A model that takes a share of a route's requests."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    """Served name of a model that this gateway publishes."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Its share, against the sum of all weights of the route."""


class ExternalModel(ApiModel):
    """A model behind an OpenAI-compatible API outside of Stoker."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            f"self.url.startsWith('https://') || self.url.matches('{SERVICE_URL}')",
            "routes: url must be https://, or http:// of a Service of this cluster (http://NAME.NAMESPACE.svc/v1)",
        ),
    )

    url: Annotated[
        str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?/v1/?$")
    ]
    """Address of its API, ending in /v1."""
    model: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
    """What it calls the model; requests are changed to say this."""
    secret_ref: LocalObjectReference | None = None
    """Secret whose key `apiKey` is sent as bearer token. Default: none is sent."""


class Fallback(ApiModel):
    """Who is asked when no model with a weight is ready, or when one cannot be reached or answers 503 before its first byte."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel("has(self.model) != has(self.external)", "routes: a fallback is either a model or external"),
    )

    model: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Served name of a model that this gateway publishes."""
    external: ExternalModel | None = None
    """A model behind an OpenAI-compatible API outside of Stoker. Whoever may use the route sends it his requests."""


class NamedRoute(ApiModel):
    """One served name for several models."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
    """What clients ask for, and what ApiKeys and roles allow. May be the name of one of its models, to give that one others to fall back on."""
    models: Annotated[list[WeightedModel], Field(min_length=1, max_length=8)]
    """Models among which its requests are divided by weight; one without a ready replica is left out."""
    fallbacks: Annotated[list[Fallback], Field(max_length=4)] = []
    """Whom to ask instead, in this order."""
