from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.desired.pod_parts import RESTRICTED, container, env, volume

from stoker.api.resolved import OperatorSettings
from stoker.desired.engine_pod import build_pod_template
from stoker.desired.engine_request import model_path

ROOT = Path(__file__).parents[3]
GPU = {"accelerator": {"vendor": "NVIDIA"}}


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
