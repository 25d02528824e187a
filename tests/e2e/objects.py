"""The resources a test applies, short to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
API_VERSION = "stoker.dev/v1alpha1"


def quickstart() -> dict[str, Object]:
    """The example's objects by kind."""
    documents = [d for file in sorted(QUICKSTART.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text()) if d]
    return {document["kind"]: document for document in documents}


MODEL_URI: str = quickstart()["ModelDeployment"]["spec"]["source"]["uri"]
MODEL_FILE = MODEL_URI.rsplit("/", 1)[1]


def resource(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def engine(namespace: str, name: str = "llama-cpp", **spec: Any) -> Object:
    """llama.cpp on the CPU, one thread: on a small machine two threads get into each other's way."""
    usual: Object = {
        "type": "LlamaCpp",
        "accelerator": {"vendor": "None"},
        "args": ["--threads", "1"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    return resource("InferenceEngine", namespace, name, {**usual, **spec})


def model(namespace: str, name: str, uri: str = MODEL_URI, **spec: Any) -> Object:
    source = {"uri": uri, **spec.pop("source", {})}
    usual: Object = {
        "engineRef": {"name": "llama-cpp"},
        "source": source,
        "contextLength": 2048,
        "maxConcurrentRequests": 2,
    }
    return resource("ModelDeployment", namespace, name, {**usual, **spec})


def gateway(namespace: str, node_port: int, name: str = "gateway", replicas: int = 1, **spec: Any) -> Object:
    usual: Object = {
        "replicas": replicas,
        "expose": {"type": "NodePort", "nodePort": node_port},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    return resource("ApiGateway", namespace, name, {**usual, **spec})


def key(namespace: str, name: str, gateway_name: str = "gateway", **spec: Any) -> Object:
    return resource("ApiKey", namespace, name, {"gatewayRef": {"name": gateway_name}, **spec})
