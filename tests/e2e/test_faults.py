"""Fifteen things that go wrong with a model, each made for real, the one reason that each has, and how it mends.

Only the lost machine is none: its Node has no kubelet, and this test speaks for it until it is silent; scheduler and node controller
are real. What else can go wrong with a source stands in test_failures.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from e2e import objects
from e2e.devices import CPU_IMAGE, offer, only_node
from e2e.kube import Kube, Object, until
from e2e.lost_node import LostNode
from e2e.objects import MODEL_FILE, MODEL_URI
from e2e.processes import Killer
from e2e.sources import SPLIT_FILE, Sources

WRONG_SUM = "0" * 64
BUSYBOX = "docker.io/library/busybox:1.37"
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 65532}


@dataclass
class Scene:
    """Where all fifteen fail side by side."""

    kube: Kube
    namespace: str
    node: str
    sources: Sources
    killer: Killer
    lost: LostNode

    def patch(self, name: str, kind: str = "modeldeployments", **spec: Any) -> None:
        self.kube.patch(kind, self.namespace, name, {"spec": spec})

    def model(self, name: str, **spec: Any) -> list[Object]:
        return [objects.model(self.namespace, name, **spec)]

    def on_engine(self, name: str, engine: Object, **spec: Any) -> list[Object]:
        """A model on an engine of its own."""
        return [
            objects.engine(self.namespace, name, **engine),
            objects.model(self.namespace, name, **{"engineRef": {"name": name}, **spec}),
        ]

    def pod(self, name: str) -> Object:
        (pod,) = self.kube.pods(self.namespace, f"stoker.dev/model-deployment={name}")
        return pod

    def crash(self, name: str) -> None:
        """Serves, and is killed; comes back, and is killed again: from then on the kubelet waits between its starts."""
        self.kube.wait_current("modeldeployments", self.namespace, name)
        for starts in range(2):
            until(lambda n=starts: self.restarts(name) == n, "the engine runs again")  # type: ignore[misc]
            self.killer.sigkill(self.namespace, self.pod(name)["metadata"]["name"], "engine")

    def restarts(self, name: str) -> int | None:
        """Of an engine that runs."""
        (engine,) = self.pod(name)["status"]["containerStatuses"]
        return engine["restartCount"] if "running" in engine["state"] else None

    def renew_token(self, value: str) -> None:
        change = json.dumps({"stringData": {"token": value}})
        self.kube.kubectl("patch", "secret", "source-token", "-n", self.namespace, "-p", change)
        # The token is in the container's environment: a new pod reads the new one.
        pods = ("pod", "-l", "stoker.dev/model-deployment=wrong-secret")
        self.kube.kubectl("delete", *pods, "-n", self.namespace, "--wait=false")


@dataclass(frozen=True)
class Fault:
    """One of the fifteen; its name is that of its model."""

    name: str
    reason: str
    words: str
    """What the message must tell."""
    objects: Callable[[Scene, str], list[Object]]
    mend: Callable[[Scene, str], object] | None = None
    provoke: Callable[[Scene, str], object] = lambda scene, name: None
    stays: bool = False
    """The pod that failed is the one that serves in the end."""


def sources(scene: Scene, name: str, mode: str, **source: Any) -> list[Object]:
    return scene.model(name, uri=scene.sources.uri(mode), source=source)


def engine_template(**spec: Any) -> Object:
    return {"podTemplate": {"spec": spec}}


def cache_of(size: str) -> Object:
    """A file system of this size: what does not fit is refused by it, not by an eviction later on."""
    return engine_template(volumes=[{"name": "models", "emptyDir": {"medium": "Memory", "sizeLimit": size}}])


# It is there before the engine, and listens on its port.
SQUATTER = engine_template(
    initContainers=[
        {
            "name": "squatter",
            "image": BUSYBOX,
            "restartPolicy": "Always",
            "command": ["httpd", "-f", "-p", "8080", "-h", "/tmp"],
            "securityContext": RESTRICTED,
        }
    ]
)
SLOW = {
    "startupDeadlineSeconds": 10,
    **engine_template(
        containers=[
            {"name": "engine", "command": ["/bin/sh", "-c", 'sleep 12; exec /app/llama-server "$@"', "llama-server"]}
        ]
    ),
}
SMALL = {"limits": {"memory": "100Mi"}}
ROOMY = {"limits": {"memory": "1Gi"}, "requests": {"memory": "64Mi"}}

FAULTS = (
    Fault("no-gpu", "InsufficientGPUs", "Insufficient nvidia.com/gpu",
          lambda s, n: s.on_engine(n, {"accelerator": {"vendor": "NVIDIA"}, "image": CPU_IMAGE}, gpus=1),
          lambda s, n: offer(s.kube, s.node, 1), stays=True),
    Fault("wrong-secret", "SourceUnauthorized", "the token of source.secretRef is not accepted",
          lambda s, n: sources(s, n, "private", secretRef={"name": "source-token"}),
          lambda s, n: s.renew_token("letmein")),
    Fault("gated-repository", "SourceGated", "accept the model's terms",
          lambda s, n: sources(s, n, "gated"),
          lambda s, n: s.sources.mend("gated"), stays=True),
    Fault("full-disk", "DiskFull", "enlarge cache.size",
          lambda s, n: s.on_engine(n, cache_of("50Mi")),
          lambda s, n: s.patch(n, "inferenceengines", **cache_of("200Mi"))),
    # The cache of its context alone takes 180 MiB.
    Fault("oom-kill", "EngineOutOfMemory", "resources.limits.memory",
          lambda s, n: s.model(n, fitPolicy="Ignore", contextLength=4096, resources=SMALL),
          lambda s, n: s.patch(n, resources={"limits": {"memory": "1Gi"}})),
    Fault("bad-image", "ImagePullFailed", "ghcr.io/ggml-org/llama.cpp:server-does-not-exist",
          lambda s, n: s.on_engine(n, {"image": "ghcr.io/ggml-org/llama.cpp:server-does-not-exist"}),
          lambda s, n: s.patch(n, "inferenceengines", image=None)),
    Fault("bad-flag", "InvalidArgument", "invalid argument: --no-such-flag",
          lambda s, n: s.model(n, args=["--no-such-flag"]),
          lambda s, n: s.patch(n, args=[])),
    Fault("port-taken", "PortInUse", "couldn't bind HTTP server socket",
          lambda s, n: s.on_engine(n, SQUATTER),
          lambda s, n: s.patch(n, "inferenceengines", podTemplate=None)),
    Fault("corrupt-gguf", "InvalidModel", "GGUF version is 99",
          lambda s, n: sources(s, n, "spoiled"),
          lambda s, n: s.sources.mend("spoiled"), stays=True),
    Fault("missing-shard", "ShardNotFound", "-00002-of-00002.gguf answered 404",
          lambda s, n: s.model(n, uri=s.sources.uri("split", file=SPLIT_FILE)),
          lambda s, n: s.patch(n, source={"uri": MODEL_URI})),
    Fault("wrong-sum", "ChecksumMismatch", WRONG_SUM,
          lambda s, n: sources(s, n, "good", sha256={MODEL_FILE: WRONG_SUM}),
          lambda s, n: s.patch(n, source={"sha256": {MODEL_FILE: s.sources.sha256()}})),
    Fault("too-long-a-context", "DoesNotFit", "set spec.contextLength to at most",
          lambda s, n: s.model(n, contextLength=8_000_000, resources=ROOMY),
          lambda s, n: s.patch(n, contextLength=None)),
    Fault("slow-start", "StartupDeadlineExceeded", "was ended after 10 s, before it was loaded",
          lambda s, n: s.on_engine(n, SLOW),
          lambda s, n: s.patch(n, "inferenceengines", startupDeadlineSeconds=60)),
    Fault("crash-while-serving", "EngineCrashedServing", "had served, ended with exit code 137",
          lambda s, n: s.model(n),
          lambda s, n: None,
          provoke=lambda s, n: s.crash(n)),
    Fault("node-gone", "NodeUnreachable", "Node e2e-lost-node of pod",
          lambda s, n: s.model(n, nodeSelector=LostNode.LABELS, tolerations=[{"operator": "Exists"}])),
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(kube: Kube, make_namespace: Callable[[str], str], sources: Sources, killer: Killer) -> Iterator[Scene]:
    scene = Scene(kube, make_namespace("e2e-faults"), only_node(kube), sources, killer, LostNode(kube))
    token: Object = {"metadata": {"name": "source-token", "namespace": scene.namespace}, "stringData": {"token": "expired"}}  # fmt: skip
    kube.apply({"apiVersion": "v1", "kind": "Secret", **token}, objects.engine(scene.namespace))
    scene.lost.join()
    try:
        kube.apply(*(made for fault in FAULTS for made in fault.objects(scene, fault.name)))
        # Ready, and then no word any more: Kubernetes gives a node 40 to 50 s.
        scene.lost.run(scene.namespace, "stoker.dev/model-deployment=node-gone")
        yield scene
    finally:
        scene.lost.remove()
        offer(kube, scene.node, 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_own_reason_and_goes_when_its_cause_goes(scene: Scene, fault: Fault) -> None:
    name = fault.name
    fault.provoke(scene, name)
    message = scene.kube.wait_reason("modeldeployments", scene.namespace, name, fault.reason)
    assert fault.words in message
    if fault.mend:
        failed = scene.pod(name) if fault.stays else None
        fault.mend(scene, name)
        scene.kube.wait_current("modeldeployments", scene.namespace, name)
        assert failed is None or scene.pod(name)["metadata"]["uid"] == failed["metadata"]["uid"]
    # The machine is small.
    scene.kube.delete("modeldeployments", scene.namespace, name)


def test_they_are_fifteen_and_no_two_share_a_reason() -> None:
    assert len({fault.reason for fault in FAULTS}) == len(FAULTS) == 15
