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
from e2e.kube import PATIENCE, Kube, Object, until

IMAGE = "docker.io/stoker-test/fake-engines:1"
TOKEN_SECONDS = 0.5
STREAMS = 20
SECONDS = 28
"""What of each engine is under way, and for how long, while its pods go away."""
REPLICAS = 2
GRACE_SECONDS = 330
"""Of a pod that may drain for five minutes, the default."""
SLOTS = STREAMS // REPLICAS
"""So that every place is taken: the gateway gives no replica more than it has places."""
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

    def streams(self, name: str) -> list[Stream]:
        """20 answers, just asked for, that take 20 s."""
        if name == REAL:
            return self.of(name).long_streams(STREAMS, seconds=SECONDS + 5, longest=LONGEST)
        return [self.of(name).stream(int(SECONDS / TOKEN_SECONDS)) for _ in range(STREAMS)]

    def sees_all(self, pods: list[str]) -> bool:
        """Whether the agents of these replicas have seen each stream's first token and one after it, and the request that waits."""
        loads, pages = [self.load(pod) for pod in pods], [self.metrics(pod) for pod in pods]
        counted = ("time_to_first_token_seconds_count", "inter_token_latency_seconds_count")
        return (
            [(load["requestsRunning"], load["requestsWaiting"]) for load in loads] == [(SLOTS, 1), (SLOTS, 0)]
            and all(sum(page.get(f"stoker_engine_{each}", 0.0) for page in pages) >= STREAMS for each in counted)
            and sum(page.get("stoker_engine_completion_tokens_total", 0.0) for page in pages) > STREAMS
        )

    def await_fewer(self, old: dict[str, list[str]], count: int) -> None:
        """Of the pods that each engine had at most so many stay."""
        for name, pods in old.items():
            until(
                lambda n=name, p=pods: len(set(p) & set(self.pods(n))) <= count,  # type: ignore[misc]
                f"{count} of the old pods of {name} at most stay",
            )


@dataclass
class Seen:
    """What was told at one moment, by the agent of each replica."""

    loads: list[Any]
    metrics: list[dict[str, float]] = field(default_factory=list)
    ready: str | None = None
    answer: Answer = field(default_factory=lambda: Answer(0, {}, b""))

    def sum_of(self, series: str) -> float:
        return sum(metrics.get(series, 0.0) for metrics in self.metrics)


@dataclass
class Story:
    """Every engine busy, then with one replica less, then with another image."""

    busy: dict[str, Seen]
    streams: dict[str, list[Stream]]
    running: dict[str, int]
    """How many were under way after the last old pod had left."""


@pytest.fixture(scope="module")
def fakes(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Iterator[Fakes]:
    """One namespace for all, since their pods start at the same time; LM Studio's image runs as root."""
    build = [objects.ROOT / "hack" / "images" / "build", "--load", kube.cluster.name, "fake-engines", "llama-cpp-next"]
    subprocess.run(build, check=True)
    namespace, port, node = make_namespace("e2e-fakes"), next_port(), only_node(kube)
    kube.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline", "--overwrite")
    offer(kube, node, REPLICAS)
    kube.apply(*a_folder_with_weights(namespace))
    kube.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/fill", "-n", namespace, "--timeout=180s")
    made = [each for name, fake in FAKES.items() for each in (fake_engine(namespace, name, fake), model(namespace, name, fake, name))]  # fmt: skip
    many = objects.model(namespace, REAL, contextLength=512, maxConcurrentRequests=SLOTS, replicas=REPLICAS, rollout={"strategy": "Recreate"})  # fmt: skip
    kube.apply(*made, objects.engine(namespace), many, objects.gateway(namespace, port.node_port))
    kube.wait_ready(*GATEWAY, namespace=namespace)
    yield Fakes(kube, namespace, Gateway(port.host_port, read_key(kube, namespace, "gateway-admin")))
    kube.kubectl("delete", "stoker", "--all", "-n", namespace, "--wait=false")
    offer(kube, node, 0)


def env(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def fake_engine(namespace: str, name: str, fake: Fake) -> Object:
    return objects.engine(
        namespace,
        name,
        type=fake.type,
        image=IMAGE,
        args=[],
        accelerator=fake.accelerator or CPU,
        env=[env("FAKE_LOAD", "wait"), env("FAKE_TOKEN_SECONDS", str(TOKEN_SECONDS))],
    )


def model(namespace: str, name: str, fake: Fake, engine: str, replicas: int = REPLICAS) -> Object:
    return objects.model(
        namespace,
        name,
        uri=fake.uri,
        format=fake.format,
        engineRef={"name": engine},
        maxConcurrentRequests=SLOTS,
        replicas=replicas,
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


def running_pods(fakes: Fakes, name: str, replicas: int = REPLICAS) -> list[str]:
    """The pods whose engine runs, once there are so many."""

    def find() -> list[str] | None:
        found = [
            str(pod["metadata"]["name"])
            for pod in fakes.kube.pods(fakes.namespace, f"stoker.dev/model-deployment={name}")
            for container in pod["status"].get("containerStatuses", [])
            if container["name"] == "engine" and "running" in container["state"]
        ]
        return found if len(found) == replicas else None

    return until(find, f"{replicas} engines of {name} run")


@pytest.fixture(scope="module")
def seen_loading(fakes: Fakes) -> dict[str, Seen]:
    """All of them at once: what is told while a model loads. Then they may, and are Ready."""
    seen = {}
    pods = {name: running_pods(fakes, name) for name in FAKES}
    for name, each in pods.items():
        if FAKES[name].before == "open":
            until(lambda p=each: all(fakes.load(pod)["up"] for pod in p), f"the port of {name} is open")  # type: ignore[misc]
        ready = fakes.kube.condition("modeldeployments", fakes.namespace, name).get("status")
        seen[name] = Seen([fakes.load(pod) for pod in each], ready=ready, answer=fakes.of(name).chat())
    for each in pods.values():
        for pod in each:
            fakes.let_load(pod)
    for name in ALL:
        fakes.kube.wait_current("modeldeployments", fakes.namespace, name)
    return seen


@EACH
def test_ready_means_that_the_fake_of_an_engine_has_loaded_its_model(
    seen_loading: dict[str, Seen], story: Story, name: str
) -> None:
    loading, ready = seen_loading[name], story.busy[name]
    assert [load["modelLoaded"] is True for load in loading.loads] == [False] * REPLICAS
    assert loading.ready != "True"
    assert loading.answer.error["code"] == "model_not_ready"
    assert [load["modelLoaded"] for load in ready.loads] == [True] * REPLICAS
    assert ready.sum_of("stoker_engine_model_loaded") == REPLICAS
    assert ready.answer.status == 200
    assert json.loads(ready.answer.body)["choices"][0]["message"]["content"]


def test_a_fake_text_generation_webui_whose_load_failed_serves_nothing(fakes: Fakes) -> None:
    """Its server comes up all the same and says that it is well."""
    fake = FAKES["textgen"]
    fakes.kube.apply(fake_engine(fakes.namespace, "fails", fake), model(fakes.namespace, "fails", fake, "fails", 1))
    (pod,) = running_pods(fakes, "fails", 1)
    fakes.let_load(pod, "fail")
    until(lambda: fakes.load(pod)["up"], "the server is up")
    assert fakes.load(pod)["modelLoaded"] is False
    answer = fakes.of("fails").chat()
    assert (answer.status, answer.error["code"]) == (503, "model_not_ready")
    fakes.kube.delete("modeldeployments", fakes.namespace, "fails")


@pytest.fixture(scope="module")
def story(fakes: Fakes, seen_loading: dict[str, Seen]) -> Story:
    """20 streams of 28 s of each engine: while they run one replica of two is taken away, and the other gets a new image."""
    answers = {name: until(lambda n=name: (a := fakes.of(n).chat()).status == 200 and a, f"{name} answers") for name in FAKES}  # type: ignore[misc]  # fmt: skip
    pods = {name: fakes.pods(name) for name in ALL}
    streams = {name: fakes.streams(name) for name in ALL}
    for each in streams.values():
        for stream in each:
            stream.await_first_piece()
    for name, fake in FAKES.items():
        if fake.counts:
            fakes.ask_past_the_gateway(pods[name][0], name)
    busy = {}
    for name, fake in FAKES.items():
        if fake.counts:
            # Agents look every two seconds: until both have seen every stream.
            until(lambda p=pods[name]: fakes.sees_all(p), f"the agents of {name} see all streams, and one that waits")  # type: ignore[misc]  # fmt: skip
        busy[name] = Seen(
            [fakes.load(p) for p in pods[name]], [fakes.metrics(p) for p in pods[name]], answer=answers[name]
        )
    fakes.kube.kubectl("scale", *(f"modeldeployment/{name}" for name in ALL), "-n", fakes.namespace, "--replicas=1")
    fakes.await_fewer(pods, 1)
    for name in ALL:
        change = {"spec": {"image": NEXT_LLAMA}} if name == REAL else NEXT_FAKE
        fakes.kube.patch("inferenceengines", fakes.namespace, name, change)
    fakes.await_fewer(pods, 0)
    running = {name: sum(stream.running for stream in each) for name, each in streams.items()}
    return Story(busy, streams, running)


@EACH
def test_the_load_of_a_fake_engine_is_told_under_one_set_of_names(story: Story, name: str) -> None:
    seen = story.busy[name]
    told = [(load["requestsRunning"], load["requestsWaiting"]) for load in seen.loads]
    if not FAKES[name].counts:
        # Unknown, and not zero: the gateway's own count stands in.
        assert told == [(None, None)] * REPLICAS
        assert all("stoker_engine_requests_running" not in metrics for metrics in seen.metrics)
        return
    assert told == [(SLOTS, 1), (SLOTS, 0)]
    assert seen.sum_of("stoker_engine_requests_running") == STREAMS
    assert seen.sum_of("stoker_engine_requests_waiting") == 1
    assert all(metrics["stoker_engine_kv_cache_used_ratio"] > 0 for metrics in seen.metrics)
    assert seen.sum_of("stoker_engine_completion_tokens_total") > STREAMS
    assert seen.sum_of("stoker_engine_time_to_first_token_seconds_count") >= STREAMS
    assert seen.sum_of("stoker_engine_inter_token_latency_seconds_count") >= STREAMS


@pytest.mark.parametrize("name", ALL)
def test_no_stream_of_llama_cpp_or_of_a_fake_engine_is_cut_by_scaling_from_two_to_one_and_a_change_of_its_image(
    fakes: Fakes, story: Story, name: str
) -> None:
    assert story.running[name] == STREAMS, "all must be under way when the pods leave"
    for stream in story.streams[name]:
        stream.await_end()
    # New pods need the devices of the old ones, which may take as long to leave as they are allowed to.
    fakes.kube.wait_current("modeldeployments", fakes.namespace, name, within=GRACE_SECONDS + PATIENCE)
    (pod,) = fakes.kube.pods(fakes.namespace, f"stoker.dev/model-deployment={name}")
    assert pod["spec"]["containers"][0]["image"] in (NEXT_LLAMA, NEXT_FAKE["spec"]["image"])
