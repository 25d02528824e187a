"""Sources of weights that misbehave, in the cluster (source_server.py), and the switches to mend them."""

from __future__ import annotations

import json

from e2e.kube import Kube
from e2e.objects import MODEL_FILE, MODEL_URI
from e2e.script_server import PORT, apply_script_server

NAMESPACE = "e2e-source"
MODES = {
    "missing": "missing",
    "private": "private",
    "cut": "cut",
    "text": "text",
    "slow": "slow",
    "gated": "gated",
    "spoiled": "spoiled",
    "split": "split",
}
"""What each name does at first; any other name behaves well."""
SPLIT_FILE = "split-00001-of-00002.gguf"
"""The first part of a model whose second is not there."""


class Sources:
    """Deployment and Service `source`, and a Service `absent` that nothing stands behind until it is mended."""

    def __init__(self, kube: Kube, image: str) -> None:
        self.kube = kube
        env = {"UPSTREAM": MODEL_URI.rsplit("/", 1)[0], "MODEL": MODEL_FILE, "MODES": json.dumps(MODES)}
        apply_script_server(kube, NAMESPACE, "source", image, python="python", env=env)
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"namespace": NAMESPACE, "name": "absent"},
                "spec": {"selector": {"app": "nothing"}, "ports": [PORT]},
            }
        )
        kube.kubectl("rollout", "restart", "deployment/source", "-n", NAMESPACE)
        kube.kubectl("rollout", "status", "deployment/source", "-n", NAMESPACE, "--timeout=180s")

    def uri(self, name: str, service: str = "source", file: str = MODEL_FILE) -> str:
        """The model by way of this name."""
        return f"http://{service}.{NAMESPACE}.svc.cluster.local:8080/{name}/{file}"

    def mend(self, name: str) -> None:
        """From now on it behaves well."""
        self.kube.proxied(NAMESPACE, "services/source:8080", f"control/{name}/ok")

    def mend_absent(self) -> None:
        """Put the server behind the Service that had none."""
        self.kube.patch("services", NAMESPACE, "absent", {"spec": {"selector": {"app": "source"}}})

    def requests(self, name: str) -> list[dict[str, str]]:
        """What was asked for under this name."""
        log = json.loads(self.kube.proxied(NAMESPACE, "services/source:8080", "log"))
        return [line for line in log if line["name"] == name]

    def sha256(self) -> str:
        """The model's true checksum."""
        return self.kube.proxied(NAMESPACE, "services/source:8080", f"sha256/{MODEL_FILE}")
