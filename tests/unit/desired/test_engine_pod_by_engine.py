"""What of a pod depends on the engine: how it gets weights, files, keys and devices."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
import yaml
from unit.desired.pod_parts import RESTRICTED, container, env, mount, volume

from stoker.desired.engine_key import build_key_secret
from stoker.desired.engine_pod import build_launch, build_pod_template
from stoker.desired.model_deployment import referenced_objects
from stoker.errors import Stalled

ROOT = Path(__file__).parents[3]
GPU = {"accelerator": {"vendor": "NVIDIA"}}
VLLM = {"type": "VLLM", "accelerator": {"vendor": "NVIDIA"}}
OLLAMA = {"type": "Ollama"}
HUB = {"uri": "hf://org/model-AWQ", "secretRef": {"name": "hub"}}


def test_an_engine_that_fetches_for_itself_gets_the_token_and_may_write_to_the_cache(pod) -> None:
    spec = pod({"source": {**HUB, "revision": "v1"}, "env": [{"name": "HF_ENDPOINT", "value": "https://mirror"}]}, VLLM)
    order = json.loads(env(spec, "fetch")["STOKER_FETCH"]["value"])
    assert (order["look"], order["place"], order["revision"]) == ("Repository", "org/model-AWQ", "v1")
    assert order["hub"] == "https://mirror"
    assert [m["name"] for m in container(spec, "fetch")["volumeMounts"]] == ["run", "tmp"]
    assert env(spec, "fetch")["STOKER_FETCH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env(spec, "engine")["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "readOnly" not in mount(spec, "/models")
    assert volume(spec, "models") == {"name": "models", "emptyDir": {}}
    assert mount(pod(), "/models")["readOnly"] is True


def test_a_repository_is_looked_at_by_the_way_that_the_engine_was_given(pod) -> None:
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "own", "key": "t"}}}
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    spec = pod({"source": {"uri": "hf://org/m"}, "env": [token, proxy, {"name": "OTHER", "value": "x"}]}, VLLM)
    given = env(spec, "fetch")
    assert given["STOKER_FETCH_TOKEN"]["valueFrom"] == token["valueFrom"]
    assert given["HTTPS_PROXY"] == proxy
    assert "OTHER" not in given


def test_a_draft_model_on_a_claim_is_mounted_beside_the_model(make_model, make_engine, resolve, settings) -> None:
    draft = {"method": "DraftModel", "draft": {"uri": "pvc://small/a/s.gguf"}}
    resolved = resolve(make_model(speculativeDecoding=draft), make_engine())
    spec = build_pod_template(resolved, settings)["spec"]
    assert mount(spec, "/draft") == {"name": "draft", "mountPath": "/draft", "readOnly": True}
    assert volume(spec, "draft")["persistentVolumeClaim"] == {"claimName": "small", "readOnly": True}
    assert "--spec-draft-model /draft/a/s.gguf" in " ".join(container(spec, "engine")["args"])
    assert ("PersistentVolumeClaim", "small") in {(r.kind, r.name) for r in referenced_objects(resolved)}


def test_configuration_files_are_mounted_one_by_one_and_a_change_replaces_the_pods(
    make_model, make_engine, resolve, settings
) -> None:
    def template(length: int):
        model = make_model(contextLength=length, source={"uri": "pvc://w/m-exl3"})
        return build_pod_template(
            resolve(model, make_engine(type="TabbyAPI", accelerator={"vendor": "NVIDIA"})), settings
        )

    one, two = template(4096), template(8192)
    assert mount(one["spec"], "/app/config.yml") == {
        "name": "config", "mountPath": "/app/config.yml", "readOnly": True, "subPath": "config.yml",
    }  # fmt: skip
    assert volume(one["spec"], "config")["configMap"] == {"name": "smol-config"}
    assert volume(one["spec"], "app-logs") == {"name": "app-logs", "emptyDir": {}}
    digests = [t["metadata"]["annotations"]["stoker.dev/config-digest"] for t in (one, two)]
    assert digests[0] != digests[1]
    for spec in (one["spec"], two["spec"]):
        # The downloader is told the context, too.
        spec["initContainers"] = []
    assert one["spec"] == two["spec"]


def test_where_a_status_says_too_little_the_agent_answers_the_probes(pod) -> None:
    engine = container(pod({"contextLength": 4096}, OLLAMA), "engine")
    for probe in ("startupProbe", "readinessProbe"):
        assert engine[probe]["httpGet"] == {"path": "/ready", "port": 9100}
    assert engine["livenessProbe"]["httpGet"] == {"path": "/", "port": "http"}
    row = json.loads(env(pod({"contextLength": 4096}, OLLAMA), "agent")["STOKER_AGENT"]["value"])
    assert (row["healthPath"], row["readyItems"], row["readyKey"]) == ("/api/ps", "models", "name")
    assert row["readyEquals"] == ["smol", "smol:latest"]
    assert "runningMetric" not in row


def test_an_engine_without_a_page_for_it_is_alive_while_it_takes_connections(pod) -> None:
    engine = {"type": "TextGenerationWebUI", "image": "mine:1"}
    assert container(pod(None, engine), "engine")["livenessProbe"]["tcpSocket"] == {"port": "http"}


def test_only_an_engine_whose_image_must_run_as_root_does(pod) -> None:
    spec = pod({"contextLength": 4096}, {"type": "LMStudio"})
    security = container(spec, "engine")["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["readOnlyRootFilesystem"]) == (False, 0, False)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container(spec, "agent")["securityContext"] == RESTRICTED


def test_adapters_of_claims_are_mounted_and_those_of_repositories_are_not(pod) -> None:
    adapters = [
        {"name": "a", "source": {"uri": "hf://org/lora"}},
        {"name": "b", "source": {"uri": "pvc://weights/loras/b"}},
    ]
    spec = pod({"source": HUB, "adapters": adapters}, VLLM)
    claim = {"claimName": "weights", "readOnly": True}
    assert volume(spec, "adapter-1") == {"name": "adapter-1", "persistentVolumeClaim": claim}
    assert mount(spec, "/adapters/1")["readOnly"] is True
    args = container(spec, "engine")["args"]
    assert args[args.index("--lora-modules") + 1 :][:2] == ["a=org/lora", "b=/adapters/1/loras/b"]
    assert not [v for v in spec["volumes"] if v["name"] == "adapter-0"]


def test_a_folder_on_the_node_keeps_its_name(pod) -> None:
    spec = pod({"source": {"uri": "file:///srv/models/qwen-awq"}}, VLLM)
    assert volume(spec, "models")["hostPath"] == {"path": "/srv/models/qwen-awq", "type": "Directory"}
    assert mount(spec, "/models/qwen-awq")["readOnly"] is True
    assert container(spec, "engine")["args"][1] == "/models/qwen-awq"


def test_devices_follow_from_the_parallelism(pod) -> None:
    spec = pod({"source": HUB, "tensorParallelSize": 4, "pipelineParallelSize": 2}, VLLM)
    assert container(spec, "engine")["resources"]["limits"] == {"nvidia.com/gpu": "8"}


def test_a_custom_command_may_name_variables_and_a_models_arguments_may_not(pod) -> None:
    custom = {"command": ["serve", "$(STOKER_MODEL_PATH)"], "port": 9000, "healthPath": "/up"}
    spec = pod({"args": ["--x=$(HOME)"]}, {"type": "Custom", "image": "mine:1", "custom": custom})
    engine = container(spec, "engine")
    assert (engine["command"], engine["args"]) == (["serve"], ["$(STOKER_MODEL_PATH)", "--x=$$(HOME)"])
    assert engine["ports"][0]["containerPort"] == 9000
    assert engine["readinessProbe"]["httpGet"] == {"path": "/up", "port": "http"}


KEYED = {"engineAuth": "GeneratedKey"}
SECRET = {"secretKeyRef": {"name": "smol-engine-key", "key": "key"}}


def test_an_engine_with_a_key_reads_it_from_the_secret_and_so_does_its_agent(pod) -> None:
    spec = pod({}, KEYED)
    assert env(spec, "engine")["LLAMA_API_KEY"]["valueFrom"] == SECRET
    assert env(spec, "agent")["STOKER_AGENT_ENGINE_KEY"]["valueFrom"] == SECRET
    assert "smol-engine-key" not in str(pod())


def test_an_engine_that_takes_a_key_by_flag_only_is_given_it_by_the_kubelet(pod) -> None:
    sglang = {"type": "SGLang", "accelerator": {"vendor": "NVIDIA"}, **KEYED}
    spec = pod({"source": {"uri": "hf://org/m"}, "args": ["--log-level", "info"]}, sglang)
    assert container(spec, "engine")["args"][-2:] == ["--api-key", "$(STOKER_ENGINE_KEY)"]
    assert env(spec, "engine")["STOKER_ENGINE_KEY"]["valueFrom"] == SECRET


def test_an_engine_that_reads_a_file_of_keys_finds_it(make_model, make_engine, resolve, settings) -> None:
    engine = make_engine(type="TabbyAPI", accelerator={"vendor": "NVIDIA"}, **KEYED)
    resolved = resolve(make_model(contextLength=4096, source={"uri": "pvc://w/m-exl3"}), engine)
    spec = build_pod_template(resolved, settings)["spec"]
    assert mount(spec, "/app/api_tokens.yml")["subPath"] == "api_tokens.yml"
    assert volume(spec, "engine-key")["secret"]["secretName"] == "smol-engine-key"
    assert "disable_auth: false" in str(build_launch(resolved).files)
    secret = build_key_secret(resolved.deployment, "k")
    assert b64decode(secret["data"]["api_tokens.yml"]).decode().startswith("api_key: k\n")
    assert secret["metadata"]["ownerReferences"][0]["name"] == "smol"


@pytest.mark.parametrize("kind", ["Ollama", "LMStudio"])
def test_an_engine_without_keys_refuses_one(make_model, make_engine, resolve, kind) -> None:
    with pytest.raises(Stalled, match=r"cannot ask for a key, as spec\.engineAuth .* or use .*LlamaCpp"):
        resolve(make_model(contextLength=4096), make_engine(type=kind, **KEYED))


def test_a_pod_template_can_bring_a_device_by_a_claim_instead_of_an_extended_resource(
    resolve, make_model, make_engine, settings
) -> None:
    """As docs/decisions/0015 shows it."""
    text = (ROOT / "docs/decisions/0015-devices-by-extended-resources.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    engine = make_engine(**yaml.safe_load(shown)["spec"])
    model = make_model(source={"uri": "hf://org/m-AWQ"})
    spec = build_pod_template(resolve(model, engine), settings)["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {"limits": {}, "claims": [{"name": "gpu"}]}
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-h100"}]
