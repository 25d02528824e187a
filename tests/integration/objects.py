"""The objects most tests need."""

from __future__ import annotations

from typing import Any

from stoker.api.base import API_VERSION

Object = dict[str, Any]
ENGINE = "llama-cpp"
GATEWAY = "gateway"
MODEL = "smollm2"


def own(kind: str, name: str, **spec: Any) -> Object:
    """One of our objects; kubectl fills the namespace in."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def engine(name: str = ENGINE, **spec: Any) -> Object:
    """An engine on the CPU."""
    return own("InferenceEngine", name, **{"type": "LlamaCpp", "accelerator": {"vendor": "None"}, **spec})


def model(name: str = MODEL, **spec: Any) -> Object:
    """A model on that engine."""
    given = {"engineRef": {"name": ENGINE}, "source": {"uri": f"https://models.example.com/{name}.gguf"}}
    return own("ModelDeployment", name, **{**given, **spec})


def gateway(name: str = GATEWAY, **spec: Any) -> Object:
    """A gateway for the models of its namespace."""
    return own("ApiGateway", name, **spec)


def api_key(name: str, **spec: Any) -> Object:
    """A key for that gateway."""
    return own("ApiKey", name, **{"gatewayRef": {"name": GATEWAY}, **spec})
