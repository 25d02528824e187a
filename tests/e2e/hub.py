"""A fake of Hugging Face's hub in the cluster (hub_server.py), with the small model and an adapter in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.kube import Kube

NAMESPACE = "e2e-hub"
URL = f"http://hub.{NAMESPACE}.svc.cluster.local:8080"
MODEL, ADAPTER = "stoker/smollm2", "stoker/smollm2-lora"
IMAGE = "docker.io/stoker-demo/models:smollm2-135m-hf"


def start_hub(kube: Kube) -> None:
    """Ready when it returns; its image must be in the cluster."""
    meta = {"namespace": NAMESPACE, "name": "hub"}
    labels = {"app": "hub"}
    server = {
        "name": "hub",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/srv/hub_server.py"],
        "volumeMounts": [{"name": "script", "mountPath": "/srv"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [server],
        "volumes": [{"name": "script", "configMap": {"name": "hub"}}],
    }
    script = (Path(__file__).parent / "hub_server.py").read_text()
    port = {"name": "http", "port": 8080, "targetPort": 8080}
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"hub_server.py": script}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": [port]}},
    )
    kube.kubectl("rollout", "status", "deployment/hub", "-n", NAMESPACE, "--timeout=60s")
