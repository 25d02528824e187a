"""A server of one Python file, in the cluster: the file in a ConfigMap, a pod that runs it, and a Service of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.kube import Kube

PORT = {"name": "http", "port": 8080, "targetPort": 8080}
HERE = Path(__file__).parent


def apply_script_server(
    kube: Kube, namespace: str, name: str, image: str, *, python: str, env: Mapping[str, str] | None = None
) -> None:
    """Runs NAME_server.py of this folder; wait for the Deployment of that name."""
    meta: dict[str, Any] = {"namespace": namespace, "name": name}
    labels = {"app": name}
    script = f"{name}_server.py"
    server: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [python, f"/srv/{script}"],
        "volumeMounts": [{"name": "script", "mountPath": "/srv"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    if env:
        server["env"] = [{"name": key, "value": value} for key, value in env.items()]
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [server],
        "volumes": [{"name": "script", "configMap": {"name": name}}],
    }
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {script: (HERE / script).read_text()}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": [PORT]}},
    )
