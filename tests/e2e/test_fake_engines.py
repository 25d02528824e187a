"""Fakes of the engines that cannot run here, each started by the very command that Stoker renders for the real one.

They answer what their documentation tells and refuse flags that it does not have (fake_engines/). What is proven is Stoker's side:
readiness, load and drain through agent, kubelet and gateway. Every test says that it is about fakes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from e2e import objects
from e2e.client import Answer, Gateway, NodePort, Stream, read_key
from e2e.devices import offer, only_node
from e2e.kube import Kube, Object, until

IMAGE = "docker.io/stoker-test/fake-engines:1"
TOKEN_SECONDS = 0.5
# Another name of the same: a change of the image as far as Stoker and Kubernetes know. From then on a model loads without waiting
# for a test.
NEXT_FAKE: Object = {
    "spec": {
        "image": "stoker-test/fake-engines:1",
        "env": [{"name": "FAKE_TOKEN_SECONDS", "value": str(TOKEN_SECONDS)}],
    }
}
NEXT_LLAMA = "docker.io/stoker-test/llama.cpp:next"
LONGEST = 400
SLOTS = 20
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
CPU, GPU = {"vendor": "None"}, {"vendor": "NVIDIA"}
FOLDER, LIBRARY = "pvc://weights/smollm2", "ollama://smollm2:135m"
GATEWAY = ("apigateway/gateway", "apikey/gateway-admin")


@dataclass(frozen=True)
class Fake:
    """An engine, its accelerator, and the weights that it takes."""

    type: str
    uri: str
    format: str = "Auto"
    accelerator: Any = None
    counts: bool = False
    """Whether it tells how many requests it has."""
    before: str = "closed"
    """What its port does while the model loads."""


FAKES = {
    "vllm": Fake("VLLM", FOLDER, "Safetensors", counts=True),
    "aphrodite": Fake("Aphrodite", FOLDER, "Safetensors", counts=True),
    "sglang": Fake("SGLang", FOLDER, "Safetensors", counts=True, before="open"),
    "tabby-api": Fake("TabbyAPI", FOLDER, "EXL3", accelerator=GPU),
    "ollama": Fake("Ollama", LIBRARY, before="open"),
    "local-ai": Fake("LocalAI", objects.MODEL_URI, before="open"),
    "textgen": Fake("TextGenerationWebUI", objects.MODEL_URI),
    "lm-studio": Fake("LMStudio", objects.MODEL_URI, before="open"),
}
REAL = "llama-cpp"
"""Beside the fakes, where it is about answers that must not be cut."""
ALL = (REAL, *FAKES)
EACH = pytest.mark.parametrize("name", FAKES)


@dataclass
class Fakes:
    """All of them behind one gateway; each model is called like its engine."""

    kube: Kube
    namespace: str
    gateway: Gateway

    def pods(self, name: str) -> list[str]:
        found = self.kube.pods(self.namespace, f"stoker.dev/model-deployment={name}")
        return [pod["metadata"]["name"] for pod in found]

    def load(self, pod: str) -> Any:
        """What the agent tells the autoscaler."""
        return json.loads(self.kube.proxied(self.namespace, f"pods/{pod}:9100", "load"))

    def metrics(self, pod: str) -> dict[str, float]:
        """The agent's series, without labels but a bucket's."""
        text = self.kube.proxied(self.namespace, f"pods/{pod}:9100", "metrics")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    def let_load(self, pod: str, how: str = "now") -> None:
        self.kube.kubectl(
            "exec", "-n", self.namespace, pod, "-c", "engine", "--", "sh", "-c", f"echo {how} > /tmp/load"
        )

    def ask_past_the_gateway(self, pod: str, name: str) -> None:
        """One request, from inside the pod: a gateway may keep requests to itself that would only wait in an engine."""
        body = json.dumps({"model": name, "max_tokens": 1})
        ask = f"from urllib.request import *; urlopen(Request('http://127.0.0.1:8080/v1/chat/completions', {body.encode()}))"
        words = ["sh", "-c", 'python3 -c "$1" >/dev/null 2>&1 &', "sh", ask]
        self.kube.kubectl("exec", "-n", self.namespace, pod, "-c", "engine", "--", *words)

    def of(self, name: str) -> Gateway:
        return Gateway(self.gateway.port, self.gateway.key, name)

    def streams_of_all(self) -> list[Stream]:
        """20 answers of each engine, all under way, that take 20 s."""
        streams = self.of(REAL).long_streams(20, seconds=25, longest=LONGEST)
        streams += [self.of(name).stream(int(20 / TOKEN_SECONDS)) for name in FAKES for _ in range(20)]
        return [stream.await_first_piece() for stream in streams]

    def scale(self, replicas: int) -> None:
        models = [f"modeldeployment/{name}" for name in ALL]
        self.kube.kubectl("scale", *models, "-n", self.namespace, f"--replicas={replicas}")


@dataclass
class Seen:
    """What was told at one moment."""

    load: Any
    metrics: dict[str, float] = field(default_factory=dict)
    ready: str | None = None
    answer: Answer = field(default_factory=lambda: Answer(0, {}, b""))


@pytest.fixture(scope="module")
def fakes(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Iterator[Fakes]:
    """One namespace for all, since their pods start at the same time; LM Studio's image runs as root."""
    build = [objects.ROOT / "hack" / "images" / "build", "--load", kube.cluster.name, "fake-engines", "llama-cpp-next"]
    subprocess.run(build, check=True)
    namespace, port, node = make_namespace("e2e-fakes"), next_port(), only_node(kube)
    kube.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline", "--overwrite")
    offer(kube, node, 1)
    kube.apply(*a_folder_with_weights(namespace))
    kube.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/fill", "-n", namespace, "--timeout=60s")
    for name, fake in FAKES.items():
        kube.apply(
            objects.engine(
                namespace,
                name,
                type=fake.type,
                image=IMAGE,
                args=[],
                accelerator=fake.accelerator or CPU,
                env=[env("FAKE_LOAD", "wait"), env("FAKE_TOKEN_SECONDS", str(TOKEN_SECONDS))],
            ),
            model(namespace, name, fake, name),
        )
    many = objects.model(
        namespace, REAL, contextLength=512, maxConcurrentRequests=SLOTS, rollout={"strategy": "Recreate"}
    )
    kube.apply(objects.engine(namespace), many, objects.gateway(namespace, port.node_port))
    kube.wait_ready(*GATEWAY, namespace=namespace)
    yield Fakes(kube, namespace, Gateway(port.host_port, read_key(kube, namespace, "gateway-admin")))
    kube.kubectl("delete", "stoker", "--all", "-n", namespace, "--wait=false")
    offer(kube, node, 0)


def env(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def model(namespace: str, name: str, fake: Fake, engine: str) -> Object:
    return objects.model(
        namespace,
        name,
        uri=fake.uri,
        format=fake.format,
        engineRef={"name": engine},
        maxConcurrentRequests=SLOTS,
        # There is nothing in these weights to reckon with.
        fitPolicy="Ignore",
        # The old pod goes at once, not when a new one is ready: then all the answers are still under way.
        rollout={"strategy": "Recreate"},
    )


def a_folder_with_weights(namespace: str) -> list[Object]:
    """A claim that holds what a fake looks for: the folder."""
    meta = {"namespace": namespace}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    container = {
        "name": "fill",
        "image": "docker.io/library/busybox:1.37",
        "command": [
            "sh",
            "-c",
            f"mkdir -p /weights/smollm2 && echo '{json.dumps(CONFIG)}' > /weights/smollm2/config.json",
        ],
        "volumeMounts": [{"name": "weights", "mountPath": "/weights"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}}],
    }
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {**meta, "name": "weights"}, "spec": claim},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": "fill"}, "spec": pod},
    ]


def running_pod(fakes: Fakes, name: str) -> str:
    """The pod of an engine whose agent has looked at it."""

    def find() -> str | None:
        for pod in fakes.kube.pods(fakes.namespace, f"stoker.dev/model-deployment={name}"):
            states = {s["name"]: s["state"] for s in pod["status"].get("containerStatuses", [])}
            if "running" in states.get("engine", {}):
                return str(pod["metadata"]["name"])
        return None

    return until(find, f"the engine of {name} runs", within=120)


@pytest.fixture(scope="module")
def seen_loading(fakes: Fakes) -> dict[str, Seen]:
    """All of them at once: what is told while a model loads. Then they may, and are Ready."""
    seen = {}
    pods = {name: running_pod(fakes, name) for name in FAKES}
    for name, pod in pods.items():
        if FAKES[name].before == "open":
            until(lambda p=pod: fakes.load(p)["up"], f"the port of {name} is open", within=30)  # type: ignore[misc]
        ready = fakes.kube.condition("modeldeployments", fakes.namespace, name).get("status")
        seen[name] = Seen(fakes.load(pod), ready=ready, answer=fakes.of(name).chat())
    for pod in pods.values():
        fakes.let_load(pod)
    fakes.kube.wait_ready(*(f"modeldeployment/{name}" for name in ALL), namespace=fakes.namespace)
    return seen


@EACH
def test_ready_means_that_the_fake_of_an_engine_has_loaded_its_model(
    fakes: Fakes, seen_loading: dict[str, Seen], name: str
) -> None:
    seen, (pod,) = seen_loading[name], fakes.pods(name)
    assert seen.load["modelLoaded"] is not True
    assert seen.ready != "True"
    assert seen.answer.error["code"] == "model_not_ready"
    # The kubelet may have seen it before the agent looked again.
    until(lambda: fakes.load(pod)["modelLoaded"], "the agent says so, too", within=5)
    assert fakes.metrics(pod)["stoker_engine_model_loaded"] == 1
    answer = until(lambda: (found := fakes.of(name).chat()).status == 200 and found, "an answer", within=5)
    assert json.loads(answer.body)["choices"][0]["message"]["content"]


def test_a_fake_text_generation_webui_whose_load_failed_serves_nothing(fakes: Fakes) -> None:
    """Its server comes up all the same and says that it is well."""
    fakes.kube.apply(model(fakes.namespace, "fails", FAKES["textgen"], "textgen"))
    pod = running_pod(fakes, "fails")
    fakes.let_load(pod, "fail")
    until(lambda: fakes.load(pod)["up"], "the server is up", within=30)
    assert fakes.load(pod)["modelLoaded"] is False
    answer = fakes.of("fails").chat()
    assert (answer.status, answer.error["code"]) == (503, "model_not_ready")
    fakes.kube.delete("modeldeployments", fakes.namespace, "fails")


@pytest.fixture(scope="module")
def seen_busy(fakes: Fakes, seen_loading: dict[str, Seen]) -> dict[str, Seen]:
    """All of them at once: every place taken, and one request more where that is told."""
    streams = [fakes.of(name).stream(int(15 / TOKEN_SECONDS)) for name in FAKES for _ in range(SLOTS)]
    for stream in streams:
        stream.await_first_piece()
    seen = {}
    for name, fake in FAKES.items():
        (pod,) = fakes.pods(name)
        if fake.counts:
            fakes.ask_past_the_gateway(pod, name)
            until(lambda p=pod: fakes.load(p)["requestsWaiting"] == 1, f"one request waits in {name}", within=5)  # type: ignore[misc]
        seen[name] = Seen(fakes.load(pod), metrics=fakes.metrics(pod))
    for stream in streams:
        stream.await_end()
    return seen


@EACH
def test_the_load_of_a_fake_engine_is_told_under_one_set_of_names(
    fakes: Fakes, seen_busy: dict[str, Seen], name: str
) -> None:
    seen, (pod,) = seen_busy[name], fakes.pods(name)
    if not FAKES[name].counts:
        # Unknown, and not zero: the gateway's own count stands in.
        assert (seen.load["requestsRunning"], seen.load["requestsWaiting"]) == (None, None)
        assert "stoker_engine_requests_running" not in seen.metrics
        return
    assert (seen.load["requestsRunning"], seen.load["requestsWaiting"]) == (SLOTS, 1)
    assert seen.metrics["stoker_engine_requests_running"] == SLOTS
    assert seen.metrics["stoker_engine_requests_waiting"] == 1
    assert seen.metrics["stoker_engine_kv_cache_used_ratio"] > 0
    until(lambda: fakes.load(pod)["requestsRunning"] == 0, f"{name} is idle again", within=5)
    after = fakes.metrics(pod)
    assert after["stoker_engine_completion_tokens_total"] > SLOTS
    assert after["stoker_engine_time_to_first_token_seconds_count"] > SLOTS
    assert after["stoker_engine_inter_token_latency_seconds_count"] > SLOTS


def test_no_stream_of_llama_cpp_or_of_any_fake_engine_is_cut_by_a_change_of_its_image(
    fakes: Fakes, seen_loading: dict[str, Seen]
) -> None:
    old = {name: fakes.pods(name) for name in ALL}
    streams = fakes.streams_of_all()
    for name in ALL:
        fakes.kube.patch(
            "inferenceengines", fakes.namespace, name, {"spec": {"image": NEXT_LLAMA}} if name == REAL else NEXT_FAKE
        )
    for name, pods in old.items():
        until(lambda n=name, p=pods: not set(p) & set(fakes.pods(n)), f"the old pod of {name} leaves", within=15)  # type: ignore[misc]
    assert sum(stream.running for stream in streams) == len(streams), "all must be under way when the pods leave"
    for stream in streams:
        stream.await_end()
    for name in ALL:
        fakes.kube.wait_current("modeldeployments", fakes.namespace, name)
        (pod,) = fakes.kube.pods(fakes.namespace, f"stoker.dev/model-deployment={name}")
        assert pod["spec"]["containers"][0]["image"] in (NEXT_LLAMA, NEXT_FAKE["spec"]["image"])


def test_no_stream_of_llama_cpp_or_of_any_fake_engine_is_cut_by_scaling_from_two_to_one(fakes: Fakes) -> None:
    # Until here the node had one device, and TabbyAPI needs one for each replica.
    offer(fakes.kube, only_node(fakes.kube), 2)
    fakes.scale(2)
    for name in ALL:
        fakes.kube.wait_current("modeldeployments", fakes.namespace, name)
    streams = fakes.streams_of_all()
    fakes.scale(1)
    for name in ALL:
        until(lambda n=name: len(fakes.pods(n)) == 1, f"one pod of {name} leaves", within=15)  # type: ignore[misc]
    assert sum(stream.running for stream in streams) == len(streams), "all must be under way when the pods leave"
    for stream in streams:
        stream.await_end()
