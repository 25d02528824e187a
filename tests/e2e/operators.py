"""The operator's pods: who leads, what it has done, and taking them away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.kube import OPERATOR, OPERATOR_NAMESPACE, Kube, until

LEASE = "stoker-operator"
PODS = "app.kubernetes.io/name=stoker,app.kubernetes.io/component=operator"


class Operators:
    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def leader(self) -> str:
        """Name of the leading pod; empty while nobody leads."""
        lease = self.kube.get("leases", OPERATOR_NAMESPACE, LEASE) or {}
        holder: str = lease.get("spec", {}).get("holderIdentity") or ""
        return holder

    def await_leader(self, other_than: str = "") -> str:
        return until(lambda: (found := self.leader()) != other_than and found, "a leader")

    def metrics(self, name: str) -> float:
        """Sum of the leader's series of this name."""
        text = self.kube.proxied(OPERATOR_NAMESPACE, f"pods/{self.leader()}:8080", "metrics")
        return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def reconciles(self) -> float:
        return self.metrics("stoker_reconcile_total")

    def writes(self) -> float:
        """What the leader wrote to the API server, its Lease aside."""
        return self.metrics("stoker_writes_total")

    def idle(self) -> bool:
        return self.metrics("stoker_queue_depth") == 0

    def restart(self) -> None:
        """All pods anew, one after the other, as an upgrade does it."""
        old = {pod["metadata"]["name"] for pod in self.kube.pods(OPERATOR_NAMESPACE, PODS)}
        self.kube.kubectl("rollout", "restart", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE)
        self.kube.kubectl("rollout", "status", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, "--timeout=120s")
        until(lambda: (leader := self.leader()) and leader not in old, "a new leader")

    @contextmanager
    def down(self) -> Iterator[None]:
        """No operator at all, for as long as the block runs."""
        deployment = self.kube.get("deployments", OPERATOR_NAMESPACE, OPERATOR)
        assert deployment
        self._scale(0)
        until(lambda: not self.kube.list("pods", OPERATOR_NAMESPACE, PODS), "no operator pod")
        try:
            yield
        finally:
            self._scale(deployment["spec"]["replicas"])
            self.kube.kubectl("rollout", "status", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, "--timeout=120s")
            self.await_leader()

    def _scale(self, replicas: int) -> None:
        self.kube.kubectl("scale", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, f"--replicas={replicas}")
