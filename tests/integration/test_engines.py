"""Engines as the operator handles them: chosen where none is named, configured by files, refused without a pod."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
import yaml
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import GATEWAY, MODEL, Object, engine, gateway, model
from integration.waiting import is_ready, reason, until, until_gone
from wrong_combinations import COMBINATIONS

from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import CONFIG_MAPS, DEPLOYMENTS, INFERENCE_ENGINES, MODEL_DEPLOYMENTS, SECRETS

pytestmark = pytest.mark.integration

SERVED = {"engineRef": None, "contextLength": 4096}


async def test_a_model_without_an_engine_gets_one_keeps_it_and_moves_when_it_goes(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    undecided = model(**SERVED)
    del undecided["spec"]["engineRef"]
    plane.apply(undecided, namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj, "Stalled") == "EngineNotFound")
    plane.apply(engine("ollama", type="Ollama"), namespace=namespace)
    served = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)
    assert served["status"]["engine"] == "ollama"
    assert "GGUF weights, no GPU" in served["status"]["engineReason"]
    await until(client, INFERENCE_ENGINES, namespace, "ollama", lambda obj: obj["status"].get("models") == 1)
    # llama.cpp would have been preferred, but what is chosen stays.
    plane.apply(engine("llama-cpp"), namespace=namespace)
    await until(client, INFERENCE_ENGINES, namespace, "llama-cpp", is_ready)
    child = await client.get(DEPLOYMENTS, namespace, MODEL)
    assert child is not None
    assert "ollama" in child["spec"]["template"]["spec"]["containers"][0]["image"]
    plane.kubectl("delete", "inferenceengine", "ollama", "-n", namespace)
    moved = await until(
        client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: obj["status"].get("engine") == "llama-cpp"
    )
    assert moved["status"]["engineReason"].startswith("LlamaCpp llama-cpp: GGUF weights")
    await until(client, INFERENCE_ENGINES, namespace, "llama-cpp", lambda obj: obj["status"].get("models") == 1)


async def test_configuration_files_come_back_and_go_with_the_engine(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine("llama-cpp"), engine("ollama", type="Ollama"), namespace=namespace)
    plane.apply(model(engineRef={"name": "ollama"}, contextLength=4096), namespace=namespace)
    name = f"{MODEL}-config"
    files = await until(client, CONFIG_MAPS, namespace, name, bool)
    assert set(files["data"]) == {"start.sh", "Modelfile"}
    await client.delete(CONFIG_MAPS, namespace, name)
    await until(client, CONFIG_MAPS, namespace, name, lambda obj: obj["metadata"]["uid"] != files["metadata"]["uid"])
    plane.apply(model(contextLength=4096), namespace=namespace)
    await until_gone(client, CONFIG_MAPS, namespace, name)


async def test_what_an_engine_cannot_do_is_said_and_makes_no_pod(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine("vllm", type="VLLM", accelerator={"vendor": "NVIDIA"}), namespace=namespace)
    plane.apply(model(engineRef={"name": "vllm"}), namespace=namespace)
    refused = await until(
        client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj, "Stalled") == "UnsupportedFormat"
    )
    (ready,) = (entry for entry in refused["status"]["conditions"] if entry["type"] == "Ready")
    assert "use LlamaCpp" in ready["message"]
    assert await client.get(DEPLOYMENTS, namespace, MODEL) is None


async def test_every_wrong_combination_is_told_and_none_makes_a_pod(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    """The whole list at once: what the API server already refuses of an engine never comes to the operator."""
    named = {f"wrong-{number}": combination for number, combination in enumerate(COMBINATIONS)}
    engines = [engine(name, type=kind, accelerator=accelerator) for name, (kind, accelerator, *_) in named.items()]
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(engines), check=False)
    there = plane.kubectl("get", "inferenceengines", "-n", namespace, "-o", "name").split()
    refused = {name for name in named if f"inferenceengine.stoker.dev/{name}" not in there}
    assert {named[name][3] for name in refused} == {"UnsupportedAccelerator"}
    wanted = {name: combination for name, combination in named.items() if name not in refused}
    assert len(wanted) >= 25
    models = [model(name, engineRef={"name": name}, **fields) for name, (_, _, fields, *_) in wanted.items()]
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(models))
    for name, (_, _, _, expected, _) in wanted.items():
        told = await until(client, MODEL_DEPLOYMENTS, namespace, name, lambda obj: bool(reason(obj, "Stalled")))
        assert reason(told, "Stalled") == expected, (name, told["status"])
    assert plane.kubectl("get", "deployments,pods", "-n", namespace, "-o", "name").strip() == ""


async def test_an_engine_that_asks_for_a_key_gets_one_and_its_gateway_knows_it(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(engineAuth="GeneratedKey"), model(), gateway(), namespace=namespace)
    secret = await until(client, SECRETS, namespace, f"{MODEL}-engine-key", bool)
    key = b64decode(secret["data"]["key"]).decode()

    def told(routes: Object) -> object:
        (entry,) = json.loads(b64decode(routes["data"]["routes.json"]))["models"] or [{}]
        return entry.get("engineKey")

    await until(client, SECRETS, namespace, f"{GATEWAY}-routes", lambda obj: told(obj) == key)
    child = await client.get(DEPLOYMENTS, namespace, MODEL)
    assert child is not None
    (container,) = child["spec"]["template"]["spec"]["containers"]
    assert {
        "name": "LLAMA_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": f"{MODEL}-engine-key", "key": "key"}},
    } in container["env"]
    plane.kubectl("annotate", "modeldeployment", MODEL, "-n", namespace, "look=again")
    again = await client.get(SECRETS, namespace, f"{MODEL}-engine-key")
    assert again is not None
    assert again["metadata"]["resourceVersion"] == secret["metadata"]["resourceVersion"]
