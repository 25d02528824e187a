from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
import yaml

from stoker.api.resolved import OperatorSettings
from stoker.desired.engine_key import build_key_secret
from stoker.desired.engine_pod import build_launch, build_pod_template
from stoker.desired.engine_request import model_path
from stoker.desired.model_deployment import referenced_objects
from stoker.errors import Stalled

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
ROOT = Path(__file__).parents[3]
GPU = {"accelerator": {"vendor": "NVIDIA"}}


@pytest.fixture
def pod(make_model, make_engine, resolve, settings):
    def build(model=None, engine=None, settings: OperatorSettings = settings):
        resolved = resolve(make_model(**(model or {})), make_engine(**(engine or {})), settings=settings)
        return build_pod_template(resolved, settings)["spec"]

    return build


def container(spec, name: str):
    return next(c for c in (*spec["initContainers"], *spec["containers"]) if c["name"] == name)


def volume(spec, name: str):
    return next(v for v in spec["volumes"] if v["name"] == name)


def env(spec, name: str) -> dict[str, dict]:
    return {variable["name"]: variable for variable in container(spec, name)["env"]}


def test_every_container_meets_pod_security_restricted(pod) -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    for name in ("agent", "fetch", "engine"):
        assert container(spec, name)["securityContext"] == RESTRICTED


def test_pods_get_no_token_and_no_variables_of_services(pod) -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["serviceAccountName"] == "smol"


def test_the_agent_starts_before_the_download_whose_progress_it_tells(pod) -> None:
    spec = pod()
    assert [c["name"] for c in spec["initContainers"]] == ["agent", "fetch"]
    assert container(spec, "agent")["restartPolicy"] == "Always"
    assert "restartPolicy" not in container(spec, "fetch")


def test_the_agent_is_told_how_to_read_the_engine(pod) -> None:
    order = json.loads(
        env(pod({"servedModelName": "chat", "rollout": {"drainTimeoutSeconds": 7}}), "agent")["STOKER_AGENT"]["value"]
    )
    assert order["model"] == "chat"
    assert order["drainTimeoutSeconds"] == 7
    assert (order["enginePort"], order["healthPath"], order["metricsPath"]) == (8080, "/health", "/metrics")
    assert order["runningMetric"] == "llamacpp:requests_processing"
    assert order["waitingMetric"] == "llamacpp:requests_deferred"


def test_the_downloader_is_told_files_checksums_and_where_the_token_is(pod) -> None:
    name = "m-00001-of-00002.gguf"
    source = {"uri": f"https://host/{name}", "sha256": {name: "a" * 64}, "secretRef": {"name": "hub"}}
    spec = pod({"source": source})
    order = json.loads(env(spec, "fetch")["STOKER_FETCH"]["value"])
    assert order["cache"] == "/models"
    assert order["files"] == [
        {"name": name, "url": f"https://host/{name}", "sha256": "a" * 64},
        {"name": "m-00002-of-00002.gguf", "url": "https://host/m-00002-of-00002.gguf"},
    ]
    assert env(spec, "fetch")["STOKER_FETCH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert container(spec, "engine")["args"][5] == f"/models/{order['digest']}/{name}"


def test_both_sidecars_keep_the_image_that_was_chosen(make_model, make_engine, resolve, settings) -> None:
    first = resolve(make_model(), make_engine())
    upgraded = OperatorSettings(stoker_image="stoker:2", operator_labels=settings.operator_labels)
    again = resolve(make_model(), make_engine(), settings=upgraded, previous=first.chosen)
    assert build_pod_template(again, upgraded) == build_pod_template(first, settings)


def test_only_the_downloader_writes_to_the_cache(pod) -> None:
    spec = pod()
    mounts = {
        name: {m["name"]: m for m in container(spec, name)["volumeMounts"]} for name in ("agent", "fetch", "engine")
    }
    assert "readOnly" not in mounts["fetch"]["models"]
    assert mounts["engine"]["models"]["readOnly"] is True
    assert "models" not in mounts["agent"]
    assert "run" not in mounts["engine"]


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ({}, {"emptyDir": {}}),
        ({"type": "EmptyDir", "size": "20Gi"}, {"emptyDir": {"sizeLimit": "20Gi"}}),
        ({"type": "PersistentVolumeClaim", "size": "1Gi"}, {"persistentVolumeClaim": {"claimName": "llama-cache"}}),
        ({"type": "HostPath", "path": "/srv/m"}, {"hostPath": {"path": "/srv/m", "type": "Directory"}}),
    ],
)
def test_weights_are_kept_where_the_engine_says(pod, cache, expected) -> None:
    assert volume(pod(engine={"cache": cache}), "models") == {"name": "models", **expected}


@pytest.mark.parametrize(
    ("uri", "expected", "path"),
    [
        (
            "pvc://weights/a/m.gguf",
            {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}},
            "/models/a/m.gguf",
        ),
        (
            "pvc://weights/m.gguf",
            {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}},
            "/models/m.gguf",
        ),
        ("file:///srv/a/m.gguf", {"hostPath": {"path": "/srv/a", "type": "Directory"}}, "/models/m.gguf"),
    ],
)
def test_weights_in_the_cluster_are_mounted_and_not_downloaded(
    make_model, make_engine, resolve, settings, uri, expected, path
) -> None:
    resolved = resolve(make_model(source={"uri": uri}), make_engine())
    spec = build_pod_template(resolved, settings)["spec"]
    order = json.loads(env(spec, "fetch")["STOKER_FETCH"]["value"])
    folder, _, name = path.rpartition("/")
    assert (order["look"], order["place"], order["files"]) == ("Files", folder, [{"name": name}])
    (models,) = [m for m in container(spec, "fetch")["volumeMounts"] if m["name"] == "models"]
    assert models["readOnly"] is True
    assert volume(spec, "models") == {"name": "models", **expected}
    assert model_path(resolved) == path


def test_resources_of_engine_and_model_are_merged_and_devices_added(pod) -> None:
    spec = pod(
        {
            "gpus": 2,
            "resources": {"limits": {"memory": "2Gi", "nvidia.com/gpu": "9"}, "requests": {"nvidia.com/gpu": "9"}},
        },
        {**GPU, "resources": {"limits": {"cpu": "4", "memory": "1Gi"}, "requests": {"cpu": "1"}}},
    )
    assert container(spec, "engine")["resources"] == {
        "limits": {"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "2"},
        "requests": {"cpu": "1"},
    }
    args = container(spec, "engine")["args"]
    assert args[args.index("--threads") + 1] == "4"
    assert args[args.index("--cache-ram") + 1] == "256"


def test_a_slice_of_a_device_is_requested_by_its_name(pod) -> None:
    engine = {"accelerator": {"vendor": "NVIDIA", "resourceName": "nvidia.com/mig-1g.10gb"}}
    assert container(pod(engine=engine), "engine")["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": "1"}}


def test_without_any_resources_none_are_written(pod) -> None:
    assert container(pod(), "engine")["resources"] == {}


def test_shared_memory_is_mounted_for_several_devices_or_on_request(pod) -> None:
    assert "shm" not in {v["name"] for v in pod(engine=GPU)["volumes"]}
    several = pod({"gpus": 2}, GPU)
    assert volume(several, "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in container(several, "engine")["volumeMounts"]
    assert volume(pod(engine={"sharedMemorySize": "3Gi"}), "shm")["emptyDir"]["sizeLimit"] == "3Gi"


def test_the_models_variables_win_over_the_engines_and_those_over_ours(pod) -> None:
    spec = pod(
        {"env": [{"name": "B", "value": "model"}, {"name": "C", "value": "$(A)"}]},
        {"env": [{"name": "A", "value": "engine"}, {"name": "B", "value": "engine"}, {"name": "HOME", "value": "/x"}],
         "envFrom": [{"secretRef": {"name": "s"}}]},
    )  # fmt: skip
    assert container(spec, "engine")["env"] == [
        {"name": "HOME", "value": "/x"},
        {"name": "A", "value": "engine"},
        {"name": "B", "value": "model"},
        {"name": "C", "value": "$(A)"},
    ]
    assert container(spec, "engine")["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert env(pod(), "engine")["HOME"]["value"] == "/tmp"


def test_arguments_are_literal_so_that_no_variable_smuggles_in_a_flag(pod) -> None:
    args = container(pod({"args": ["--grammar", "$(FLAG) $$(X) 5$"]}), "engine")["args"]
    assert args[-1] == "$$(FLAG) $$$$(X) 5$$"


def test_the_startup_probe_lasts_as_long_as_the_deadline(pod) -> None:
    for deadline in (10, 600, 901, 86400):
        probe = container(pod(engine={"startupDeadlineSeconds": deadline}), "engine")["startupProbe"]
        lasts = probe["periodSeconds"] * probe["failureThreshold"]
        assert deadline <= lasts < deadline + probe["periodSeconds"]
    assert container(pod(), "engine")["startupProbe"]["periodSeconds"] == 1


def test_an_engine_that_fails_its_probes_is_not_drained_first(pod) -> None:
    engine = container(pod(), "engine")
    assert engine["startupProbe"]["terminationGracePeriodSeconds"] == 10
    assert engine["livenessProbe"]["terminationGracePeriodSeconds"] == 10
    assert "terminationGracePeriodSeconds" not in engine["readinessProbe"]


def test_a_leaving_engine_is_drained_within_its_grace_period(pod) -> None:
    spec = pod({"rollout": {"drainTimeoutSeconds": 60}})
    assert container(spec, "engine")["lifecycle"] == {"preStop": {"httpGet": {"path": "/drain", "port": 9100}}}
    assert spec["terminationGracePeriodSeconds"] == 90


def test_placement_of_engine_and_model_is_merged(pod) -> None:
    spec = pod(
        {"nodeSelector": {"a": "model"}, "tolerations": [{"key": "x"}, {"key": "y"}], "affinity": {"podAffinity": {}}},
        {
            "nodeSelector": {"a": "engine", "b": "engine"},
            "tolerations": [{"key": "x"}],
            "affinity": {"nodeAffinity": {}},
            "runtimeClassName": "nvidia",
            "priorityClassName": "high",
            "schedulerName": "own",
            "topologySpreadConstraints": [{"maxSkew": 1}, {"maxSkew": 2, "labelSelector": {"matchLabels": {"c": "d"}}}],
        },
    )
    assert spec["nodeSelector"] == {"a": "model", "b": "engine"}
    assert spec["tolerations"] == [{"key": "x"}, {"key": "y"}]
    assert spec["affinity"] == {"podAffinity": {}}
    assert (spec["runtimeClassName"], spec["priorityClassName"], spec["schedulerName"]) == ("nvidia", "high", "own")
    own, given = spec["topologySpreadConstraints"]
    assert own["labelSelector"]["matchLabels"]["stoker.dev/model-deployment"] == "smol"
    assert given["labelSelector"] == {"matchLabels": {"c": "d"}}


def test_nothing_is_written_that_nobody_asked_for(pod) -> None:
    assert not {"nodeSelector", "tolerations", "affinity", "runtimeClassName", "imagePullSecrets"} & pod().keys()


def test_the_engines_affinity_holds_where_the_model_has_none(pod) -> None:
    assert pod(engine={"affinity": {"nodeAffinity": {}}})["affinity"] == {"nodeAffinity": {}}


def test_pull_secrets_of_installation_and_engine_are_named_once(pod) -> None:
    settings = OperatorSettings(stoker_image="stoker:1", image_pull_secrets=("a", "b"))
    spec = pod(engine={"imagePullSecrets": [{"name": "b"}, {"name": "c"}]}, settings=settings)
    assert spec["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]


def test_images_and_their_policies_come_from_where_they_are_set(pod) -> None:
    settings = OperatorSettings(stoker_image="stoker:1", stoker_image_pull_policy="Always")
    spec = pod(engine={"image": "mine:1", "imagePullPolicy": "Never"}, settings=settings)
    assert [
        (container(spec, n)["image"], container(spec, n)["imagePullPolicy"]) for n in ("agent", "fetch", "engine")
    ] == [
        ("stoker:1", "Always"),
        ("stoker:1", "Always"),
        ("mine:1", "Never"),
    ]


def test_a_chat_template_is_mounted_where_the_engine_reads_it(pod) -> None:
    spec = pod({"chatTemplate": {"configMapRef": {"name": "templates", "key": "own.jinja"}}})
    items = [{"key": "own.jinja", "path": "chat-template.jinja"}]
    assert volume(spec, "chat-template")["configMap"] == {"name": "templates", "items": items}
    args = container(spec, "engine")["args"]
    assert args[args.index("--chat-template-file") + 1] == "/etc/stoker/chat-template/chat-template.jinja"
    assert "/etc/stoker/chat-template" in {m["mountPath"] for m in container(spec, "engine")["volumeMounts"]}


def test_a_pod_template_is_laid_over_everything_but_the_labels_that_select(
    make_model, make_engine, resolve, settings
) -> None:
    patch = {
        "metadata": {"labels": {"x": "y", "stoker.dev/model-deployment": "other"}, "annotations": {"a": "b"}},
        "spec": {
            "hostname": "h",
            "containers": [{"name": "engine", "tty": True}],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        },
    }
    template = build_pod_template(resolve(make_model(), make_engine(podTemplate=patch)), settings)
    labels = template["metadata"]["labels"]
    assert (labels["x"], labels["stoker.dev/model-deployment"]) == ("y", "smol")
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["spec"]["hostname"] == "h"
    assert container(template["spec"], "engine")["tty"] is True
    assert container(template["spec"], "engine")["image"]
    assert volume(template["spec"], "tmp")["emptyDir"] == {"sizeLimit": "1Gi"}


VLLM = {"type": "VLLM", "accelerator": {"vendor": "NVIDIA"}}
OLLAMA = {"type": "Ollama"}
HUB = {"uri": "hf://org/model-AWQ", "secretRef": {"name": "hub"}}


def mount(spec, path: str):
    return next(m for m in container(spec, "engine")["volumeMounts"] if m["mountPath"] == path)


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
