"""The cluster under test: kubectl as a user types it, and plain reads for what has to be seen quickly."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from awake import awake
from pytest_kind import KindCluster

Object = dict[str, Any]
T = TypeVar("T")

OPERATOR_NAMESPACE = "stoker-system"
OPERATOR = "stoker-operator"
MANAGED = "app.kubernetes.io/managed-by=stoker"

API_VERSIONS = {
    "configmaps": "v1",
    "events": "v1",
    "namespaces": "v1",
    "nodes": "v1",
    "persistentvolumeclaims": "v1",
    "pods": "v1",
    "secrets": "v1",
    "serviceaccounts": "v1",
    "services": "v1",
    "deployments": "apps/v1",
    "statefulsets": "apps/v1",
    "leases": "coordination.k8s.io/v1",
    "networkpolicies": "networking.k8s.io/v1",
    "poddisruptionbudgets": "policy/v1",
    "rolebindings": "rbac.authorization.k8s.io/v1",
    "roles": "rbac.authorization.k8s.io/v1",
    "apigateways": "stoker.dev/v1alpha1",
    "apikeys": "stoker.dev/v1alpha1",
    "inferenceengines": "stoker.dev/v1alpha1",
    "modeldeployments": "stoker.dev/v1alpha1",
}
CHILD_KINDS = (
    "deployments",
    "statefulsets",
    "configmaps",
    "services",
    "serviceaccounts",
    "networkpolicies",
    "roles",
    "rolebindings",
    "poddisruptionbudgets",
    "persistentvolumeclaims",
    "secrets",
    "apikeys",
)
"""Everything that Stoker makes; what Kubernetes makes out of it (ReplicaSets, EndpointSlices) follows by itself."""


PATIENCE = 180.0
"""For what comes by itself, on a slow machine, too. A promise in seconds says `within`."""


def until(read: Callable[[], T | None], what: str, within: float = PATIENCE, every: float = 0.1) -> T:
    """Ask again until the answer is there; an assertion that says what was awaited when it is not."""
    end = awake() + within
    while True:
        answer = read()
        if answer:
            return answer
        if awake() > end:
            raise AssertionError(f"not within {within:g} s: {what}; last answer: {answer!r}")
        time.sleep(every)


class Kube:
    """One cluster, as its admin sees it."""

    def __init__(self, cluster: KindCluster) -> None:
        self.cluster = cluster
        self._local = threading.local()

    @property
    def _http(self) -> Any:
        """A client of its own for each thread: requests' sessions are not made for several."""
        if not hasattr(self._local, "http"):
            import pykube

            self._local.http = pykube.HTTPClient(pykube.KubeConfig.from_file(self.cluster.kubeconfig_path))
        return self._local.http

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl printed; what it complained about is in the error."""
        result = subprocess.run(
            [str(self.cluster.kubectl_path), *arguments],
            env={"KUBECONFIG": str(self.cluster.kubeconfig_path)},
            input=text,
            capture_output=True,
            encoding="utf-8",
        )
        if result.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    def apply(self, *objects: Object) -> None:
        """Like a user's `kubectl apply -f`."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """An object, or None where there is none."""
        answer = self._http.get(version=API_VERSIONS[plural], namespace=namespace, url=f"{plural}/{name}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        result: Object = answer.json()
        return result

    def list(self, plural: str, namespace: str, label_selector: str = "") -> list[Object]:
        """Objects of a kind."""
        answer = self._http.get(
            version=API_VERSIONS[plural], namespace=namespace, url=plural, params={"labelSelector": label_selector}
        )
        answer.raise_for_status()
        items: list[Object] = answer.json()["items"]
        return items

    def patch(self, plural: str, namespace: str, name: str, change: Object) -> Object:
        """A JSON merge patch."""
        answer = self._http.patch(
            version=API_VERSIONS[plural],
            namespace=namespace,
            url=f"{plural}/{name}",
            headers={"Content-Type": "application/merge-patch+json"},
            data=json.dumps(change),
        )
        assert answer.ok, answer.text
        result: Object = answer.json()
        return result

    def delete(self, plural: str, namespace: str, name: str) -> None:
        """Ask for its deletion and do not wait; what it owns goes in the background."""
        answer = self._http.delete(
            version=API_VERSIONS[plural],
            namespace=namespace,
            url=f"{plural}/{name}",
            json={"propagationPolicy": "Background"},
        )
        assert answer.ok, answer.text

    def proxied(self, namespace: str, target: str, path: str) -> str:
        """A GET through the API server: target is pods/NAME:PORT or services/NAME:PORT."""
        answer = self._http.get(version="v1", namespace=namespace, url=f"{target}/proxy/{path}")
        answer.raise_for_status()
        text: str = answer.text
        return text

    def pods(self, namespace: str, label_selector: str = "") -> list[Object]:
        """Pods that are there to stay."""
        return [p for p in self.list("pods", namespace, label_selector) if "deletionTimestamp" not in p["metadata"]]

    def condition(self, plural: str, namespace: str, name: str, type_: str = "Ready") -> Object:
        """A condition; empty where it is not given."""
        found = self.get(plural, namespace, name) or {}
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        result: Object = conditions.get(type_, {})
        return result

    def wait_ready(self, *names: str, namespace: str, within: int = 240) -> None:
        """`kubectl wait --for=condition=Ready`, as a user's script does it."""
        self.kubectl("wait", "--for=condition=Ready", *names, "-n", namespace, f"--timeout={within}s")

    def wait_current(self, plural: str, namespace: str, name: str, within: float = 240) -> None:
        """Ready for this very generation and nothing under way any more."""

        def current() -> bool:
            found = self.get(plural, namespace, name) or {}
            status = found.get("status", {})
            types = {c["type"]: c["status"] for c in status.get("conditions", [])}
            return (
                status.get("observedGeneration") == found.get("metadata", {}).get("generation")
                and types.get("Ready") == "True"
                and not types.keys() & {"Reconciling", "Stalled"}
            )

        until(current, f"{plural}/{name} Ready and nothing under way", within)

    def wait_reason(self, plural: str, namespace: str, name: str, reason: str, within: float = PATIENCE) -> str:
        """The message of the Ready condition once it is not Ready for this reason."""

        def message() -> str | None:
            condition = self.condition(plural, namespace, name)
            seen.append(f"{condition.get('reason')}: {condition.get('message')}")
            if condition.get("reason") == reason and condition.get("status") != "True":
                return str(condition["message"])
            return None

        seen: list[str] = []
        try:
            return until(message, f"{plural}/{name} not Ready with reason {reason}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}; seen: {list(dict.fromkeys(seen))}") from None

    def stoker_image(self) -> str:
        """Stoker's own image, which has a Python for the tests' own pods."""
        deployment = self.get("deployments", OPERATOR_NAMESPACE, OPERATOR)
        assert deployment
        image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        return image

    def run_python(
        self, namespace: str, name: str, program: str, labels: dict[str, str] | None = None
    ) -> tuple[str, str]:
        """A pod of the test's own that runs a program to its end: its phase and what it said."""
        container = {
            "name": name,
            "image": self.stoker_image(),
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", program],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

        def over() -> str:
            phase: str = (self.get("pods", namespace, name) or {}).get("status", {}).get("phase", "")
            return phase if phase in ("Succeeded", "Failed") else ""

        phase = until(over, f"the end of pod {name}")
        return phase, self.kubectl("logs", name, "-n", namespace)

    def children(self, namespace: str, label_selector: str = MANAGED, kinds: Iterable[str] = CHILD_KINDS) -> dict[tuple[str, str], Object]:  # fmt: skip
        """Everything Stoker made in a namespace, by (kind, name)."""
        return {
            (plural, item["metadata"]["name"]): item
            for plural in kinds
            for item in self.list(plural, namespace, label_selector)
        }

    @contextmanager
    def watch(self, plural: str, namespace: str, name: str) -> Iterator[list[tuple[float, Object]]]:
        """A growing list of (seconds on the clock of `awake`, object), for as long as the block runs; starts with the present state."""
        version = API_VERSIONS[plural]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        query = f"watch=1&timeoutSeconds=1200&fieldSelector=metadata.name%3D{name}"
        process = subprocess.Popen(
            [str(self.cluster.kubectl_path), "get", "--raw", f"{base}/namespaces/{namespace}/{plural}?{query}"],
            env={"KUBECONFIG": str(self.cluster.kubeconfig_path)},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        seen: list[tuple[float, Object]] = []

        def follow() -> None:
            assert process.stdout
            seen.extend((awake(), json.loads(line)["object"]) for line in process.stdout)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            until(lambda: bool(seen), f"the first event of {plural}/{name}")
            yield seen
        finally:
            process.kill()
            process.wait()
            thread.join(5)
