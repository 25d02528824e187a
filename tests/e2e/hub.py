"""A fake of Hugging Face's hub in the cluster (hub_server.py), with the small model and an adapter in it."""

from __future__ import annotations

from e2e.kube import Kube
from e2e.script_server import apply_script_server

NAMESPACE = "e2e-hub"
URL = f"http://hub.{NAMESPACE}.svc.cluster.local:8080"
MODEL, ADAPTER = "stoker/smollm2", "stoker/smollm2-lora"
IMAGE = "docker.io/stoker-demo/models:smollm2-135m-hf"


def start_hub(kube: Kube) -> None:
    """Ready when it returns; its image must be in the cluster."""
    apply_script_server(kube, NAMESPACE, "hub", IMAGE, python="python3")
    kube.kubectl("rollout", "status", "deployment/hub", "-n", NAMESPACE, "--timeout=180s")
