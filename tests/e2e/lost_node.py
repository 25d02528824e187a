"""A machine that is lost: a Node without a kubelet, for which a test speaks until it falls silent.

Scheduler, node controller and operator are real, and cannot tell it from a machine whose power is cut.
"""

from __future__ import annotations

import json
import time
from typing import ClassVar

from e2e.kube import Kube, Object, until

NAME = "e2e-lost-node"
CAPACITY = {"cpu": "8", "memory": "32Gi", "pods": "10", "ephemeral-storage": "100Gi"}


class LostNode:
    """Nothing but what tolerates every taint and asks for its label comes to it."""

    LABELS: ClassVar[dict[str, str]] = {"stoker-test/machine": "lost"}

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def join(self) -> None:
        """There, and ready."""
        taint = {"key": "stoker-test/machine", "value": "lost", "effect": "NoSchedule"}
        self.kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": self.LABELS}, "spec": {"taints": [taint]}})  # fmt: skip
        self._say("node", NAME, {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [condition("Ready")]})

    def run(self, namespace: str, selector: str) -> None:
        """What its kubelet would say of its pod: the weights are there, and the engine serves."""

        def bound() -> Object | None:
            pods = self.kube.pods(namespace, selector)
            return pods[0] if pods and pods[0]["spec"].get("nodeName") == NAME else None

        pod = until(bound, f"a pod on {NAME}")
        spec = pod["spec"]
        conditions = [condition(kind) for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        self._say(
            "pod",
            pod["metadata"]["name"],
            {
                "phase": "Running",
                "startTime": now(),
                "conditions": conditions,
                "initContainerStatuses": [of(each, ended="restartPolicy" not in each) for each in spec["initContainers"]],
                "containerStatuses": [of(each) for each in spec["containers"]],
            },
            "-n",
            namespace,
        )  # fmt: skip

    def remove(self) -> None:
        """With its pods, which nobody else would end."""
        self.kube.kubectl("delete", "node", NAME, "--ignore-not-found")
        gone = ("--field-selector", f"spec.nodeName={NAME}", "--force", "--grace-period=0", "--wait=false")
        for namespace in self.kube.kubectl("get", "pods", "-A", "-o", "jsonpath={range .items[?(@.spec.nodeName=='" + NAME + "')]}{.metadata.namespace}{'\\n'}{end}").split():  # fmt: skip
            self.kube.kubectl("delete", "pods", "-n", namespace, *gone)

    def _say(self, kind: str, name: str, status: Object, *where: str) -> None:
        patch = json.dumps({"status": status})
        self.kube.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", patch)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def condition(kind: str) -> Object:
    return {"type": kind, "status": "True", "reason": "Told", "lastTransitionTime": now()}


def of(container: Object, *, ended: bool = False) -> Object:
    state: Object = (
        {"terminated": {"exitCode": 0, "reason": "Completed"}} if ended else {"running": {"startedAt": now()}}
    )
    about = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**about, "ready": True, "started": not ended, "state": state}
