"""A real vLLM on the CPU, with the small model as a repository on Hugging Face has it: in `make test-all` only.

It starts in a minute, takes 3 GB of memory, and its image 3 GB of disk. Each start is dear, so what is tried after one shares it by a fixture.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from e2e import hub, objects
from e2e.client import Answer, Gateway, NodePort, Service, read_key
from e2e.kube import Kube, Object, until
from openai import OpenAI
from unit.engines.test_table import requests_of

from stoker.api.inspection import ModelStatus
from stoker.engines import ENGINES
from stoker.models.fit import FitRequest, kv_bytes
from stoker.models.inspected import facts_of

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

IMAGE = "docker.io/vllm/vllm-openai-cpu:v0.32.0-x86_64"
NEXT_IMAGE = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
"""Another name of the same: a change of the image as far as Stoker and Kubernetes know."""
START_SECONDS = 400
STREAMS = 20
PODS = "stoker.dev/model-deployment=smollm2"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Reads command lines as JSON, one a line, and parses each as `vllm serve` does.
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for line in sys.stdin:
    parser.parse_args(json.loads(line))
    print("ok")
"""

# Bytes of all processes of the engine: a page that several share counts once.
MEMORY = """
import pathlib
total = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if b"stoker" not in (process / "cmdline").read_bytes():
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except OSError:
        pass
print(total)
"""


@pytest.fixture(scope="module")
def service(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Service:
    """The model on llama.cpp; the engine vLLM is there, too, and serves nothing yet."""
    build = [objects.ROOT / "hack" / "images" / "build", "--load", kube.cluster.name, "vllm", "models-hf"]
    subprocess.run(build, check=True)
    hub.start_hub(kube)
    namespace, port = make_namespace("e2e-vllm"), next_port()
    vllm: Object = {
        "type": "VLLM",
        "image": IMAGE,
        "args": [],
        "env": [{"name": "HF_ENDPOINT", "value": hub.URL}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "4Gi"}},
    }
    kube.apply(
        objects.engine(namespace),
        objects.engine(namespace, "vllm", **vllm),
        # The old pod goes first: there is not memory for two everywhere.
        objects.model(
            namespace, "smollm2", contextLength=512, maxConcurrentRequests=STREAMS, rollout={"strategy": "Recreate"}
        ),
        objects.gateway(namespace, port.node_port),
    )
    kube.wait_ready("modeldeployment/smollm2", "apigateway/gateway", "apikey/gateway-admin", namespace=namespace)
    return Service(namespace, Gateway(port.host_port, read_key(kube, namespace, "gateway-admin"), "smollm2"), "smollm2")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.gateway.url, api_key=service.gateway.key, max_retries=0, timeout=120) as client:
        yield client


def pods(kube: Kube, service: Service) -> list[str]:
    return [pod["metadata"]["name"] for pod in kube.pods(service.namespace, PODS)]


def load(kube: Kube, service: Service, path: str = "load") -> list[str]:
    """What the agent of each replica says."""
    return [kube.proxied(service.namespace, f"pods/{pod}:9100", path) for pod in pods(kube, service)]


def running(kube: Kube, service: Service) -> int:
    return sum(json.loads(said)["requestsRunning"] for said in load(kube, service))


@dataclass(frozen=True)
class Move:
    """From llama.cpp to vLLM."""

    before: Object
    asked: Object
    after: Object
    answer: Answer


@pytest.fixture(scope="module")
def moved(kube: Kube, service: Service) -> Move:
    """The same deployment on vLLM."""
    assert service.gateway.chat().status == 200
    before = kube.get("modeldeployments", service.namespace, "smollm2")
    asked = {"engineRef": {"name": "vllm"}, "source": {"uri": f"hf://{hub.MODEL}"}}
    after = kube.patch("modeldeployments", service.namespace, "smollm2", {"spec": asked})
    kube.wait_current("modeldeployments", service.namespace, "smollm2", within=START_SECONDS)
    answer = until(lambda: (found := service.gateway.chat()).status == 200 and found, "vLLM answers")
    assert before
    return Move(before, asked, after, answer)


@pytest.fixture(scope="module")
def tuned(kube: Kube, service: Service, moved: Move) -> Move:
    """With an adapter and tool calls, and two replicas."""
    adapters = [{"name": "smollm2-tuned", "source": {"uri": f"hf://{hub.ADAPTER}"}}]
    change = {"spec": {"adapters": adapters, "toolCallParser": "hermes", "replicas": 2}}
    kube.patch("modeldeployments", service.namespace, "smollm2", change)
    kube.wait_current("modeldeployments", service.namespace, "smollm2", within=START_SECONDS)
    return moved


def test_a_model_moves_from_llama_cpp_to_vllm_by_its_engine_and_its_source(
    kube: Kube, service: Service, moved: Move
) -> None:
    before, after = moved.before["spec"], moved.after["spec"]
    assert {key for key in after if after[key] != before.get(key)} == set(moved.asked)
    assert json.loads(moved.answer.body)["system_fingerprint"].startswith("vllm-")
    found = kube.get("modeldeployments", service.namespace, "smollm2")
    assert found
    assert found["status"]["model"]["architecture"] == "llama"


def test_chat_and_a_stream_by_the_openai_client(client: OpenAI, moved: Move) -> None:
    hello: Any = [{"role": "user", "content": "Hello!"}]
    answer = client.chat.completions.create(model="smollm2", messages=hello, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage
    pieces, usage = [], None
    for chunk in client.chat.completions.create(
        model="smollm2", messages=hello, max_tokens=16, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    assert usage
    assert usage.completion_tokens >= len(pieces)


def test_the_agent_tells_vllms_numbers(kube: Kube, service: Service, moved: Move) -> None:
    stream = service.gateway.stream(tokens=200).await_first_piece()
    until(lambda: running(kube, service) == 1, "one runs")
    stream.await_end()
    until(lambda: running(kube, service) == 0, "none runs")
    # The replica that answered, of two at most.
    told = [page_of(said) for said in load(kube, service, "metrics")]
    seen = max(told, key=lambda page: page["stoker_engine_completion_tokens_total"])
    assert seen["stoker_engine_model_loaded"] == 1
    assert seen["stoker_engine_requests_waiting"] == 0
    assert seen["stoker_engine_completion_tokens_total"] >= 200
    assert seen["stoker_engine_prompt_tokens_total"] > 0
    assert 0 <= seen["stoker_engine_kv_cache_used_ratio"] <= 1
    assert seen["stoker_engine_time_to_first_token_seconds_count"] >= 1
    assert seen["stoker_engine_time_to_first_token_seconds_sum"] > 0
    assert seen["stoker_engine_inter_token_latency_seconds_count"] >= 199


def page_of(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith("stoker_engine")]
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_the_bill_of_memory_agrees_with_what_vllm_prints_and_takes(kube: Kube, service: Service, moved: Move) -> None:
    found = kube.get("modeldeployments", service.namespace, "smollm2")
    assert found
    fit, model = found["status"]["fit"], ModelStatus.model_validate(found["status"]["model"])
    pod = pods(kube, service)[0]
    said = kube.kubectl("logs", "-n", service.namespace, pod, "-c", "engine")
    tokens = int(re.search(r"KV cache size: ([\d,]+) tokens", said)[1].replace(",", ""))  # type: ignore[index]
    # The cache has a fixed size here; how many tokens are in it is vLLM's own reckoning.
    reckoned = kv_bytes(facts_of(model), FitRequest("VLLM", 1, tokens))
    assert reckoned == pytest.approx(fit["kvBytes"], rel=0.05)
    taken = int(kube.kubectl("exec", "-n", service.namespace, pod, "-c", "engine", "--", "python3", "-c", MEMORY))
    assert 0.7 * fit["requiredBytes"] < taken <= fit["requiredBytes"]


def test_every_generated_command_is_accepted_by_vllms_own_parser(kube: Kube, service: Service, moved: Move) -> None:
    pod = pods(kube, service)[0]
    # Behind `vllm serve`.
    commands = [list(ENGINES["VLLM"].command(request)[2:]) for request in requests_of(ENGINES["VLLM"])]
    given = "".join(json.dumps(command) + "\n" for command in commands)
    said = kube.kubectl(
        "exec", "-i", "-n", service.namespace, pod, "-c", "engine", "--", "python3", "-c", PARSE, text=given
    )
    assert said.split().count("ok") == len(commands)


def test_an_adapter_answers_under_its_own_name(client: OpenAI, tuned: Move) -> None:
    assert {"smollm2", "smollm2-tuned"} <= {model.id for model in client.models.list()}
    question: Any = [{"role": "user", "content": "What is the capital of France?"}]
    answers = {
        name: client.chat.completions.create(model=name, messages=question, max_tokens=16, temperature=0)
        for name in ("smollm2", "smollm2-tuned")
    }
    assert answers["smollm2-tuned"].model == "smollm2-tuned"
    texts = {answer.choices[0].message.content for answer in answers.values()}
    assert len(texts) == 2, "the adapter changes the answer"


def test_a_tool_is_called(client: OpenAI, tuned: Move) -> None:
    question: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    tools: Any = [TOOL]
    answer = client.chat.completions.create(
        model="smollm2", messages=question, tools=tools, tool_choice="required", max_tokens=200, temperature=0
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"


def test_no_stream_is_cut_by_scaling_vllm_from_two_to_one_and_a_change_of_its_image(
    kube: Kube, service: Service, tuned: Move
) -> None:
    old = set(pods(kube, service))
    # All under way, for 20 s and a little more.
    streams = [stream.await_first_piece() for stream in service.gateway.long_streams(STREAMS, seconds=28, longest=400)]
    kube.kubectl("scale", "modeldeployment/smollm2", "-n", service.namespace, "--replicas=1")
    until(lambda: len(old & set(pods(kube, service))) == 1, "one pod leaves")
    kube.patch("inferenceengines", service.namespace, "vllm", {"spec": {"image": NEXT_IMAGE}})
    until(lambda: not old & set(pods(kube, service)), "the other leaves, too")
    assert all(stream.running for stream in streams), "all must be under way when the pods leave"
    for stream in streams:
        stream.await_end()
    kube.wait_current("modeldeployments", service.namespace, "smollm2", within=START_SECONDS)
    (pod,) = kube.pods(service.namespace, PODS)
    assert pod["spec"]["containers"][0]["image"] == NEXT_IMAGE
