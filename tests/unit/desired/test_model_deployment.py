from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from stoker.api.names import RESOLVED_ANNOTATION
from stoker.desired.model_deployment import Reference, build_children, missing_reference, referenced_objects
from stoker.errors import Stalled, Waiting

GPU = {"accelerator": {"vendor": "NVIDIA"}}
CLAIM = {"type": "PersistentVolumeClaim", "size": "10Gi"}
SHARED_CLAIM = {**CLAIM, "accessModes": ["ReadWriteMany"]}
SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
NO_SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
RECREATE = {"type": "Recreate"}


def by_kind(children) -> dict[str, dict]:
    return {child["kind"]: child for child in children}


def test_the_children_are_complete_and_belong_to_the_model(make_model, make_engine, resolve, settings) -> None:
    children = build_children(resolve(make_model(), make_engine(), publishers=(("web", "gateway"),)), settings)
    assert [child["kind"] for child in children] == [
        "Role", "RoleBinding", "ServiceAccount", "NetworkPolicy", "Service", "Deployment",
    ]  # fmt: skip
    for child in children:
        assert child["metadata"]["namespace"] == "team"
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stoker"
        assert child["metadata"]["labels"]["stoker.dev/model-deployment"] == "smol"
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "stoker.dev/v1alpha1",
                "kind": "ModelDeployment",
                "name": "smol",
                "uid": "uid-smol",
                "controller": True,
            }
        ]


def test_building_twice_gives_equal_children_and_changes_no_input(make_model, make_engine, resolve, settings) -> None:
    model = make_model(
        env=[{"name": "A", "value": "1"}], resources={"limits": {"cpu": "2"}}, affinity={"nodeAffinity": {}}
    )
    engine = make_engine(
        env=[{"name": "A", "value": "0"}],
        resources={"limits": {"memory": "1Gi"}},
        podTemplate={"spec": {"hostname": "x"}},
    )
    before = copy.deepcopy((model, engine))
    resolved = resolve(model, engine)
    assert build_children(resolved, settings) == build_children(resolved, settings)
    assert (model, engine) == before


def test_the_pods_do_not_change_with_replicas_publishers_or_generation(
    make_model, make_engine, resolve, settings
) -> None:
    def template(model, **more):
        return by_kind(build_children(resolve(model, make_engine(), **more), settings))["Deployment"]["spec"][
            "template"
        ]

    other = make_model(replicas=3, metadata={"generation": 9, "labels": {"x": "y"}, "annotations": {"a": "b"}})
    assert template(make_model()) == template(other, publishers=(("a", "b"),))


def test_chosen_values_are_kept_on_the_deployment_and_not_in_its_template(
    make_model, make_engine, resolve, settings
) -> None:
    deployment = by_kind(build_children(resolve(make_model(), make_engine()), settings))["Deployment"]
    assert (
        '"engineImage":"ghcr.io/ggml-org/llama.cpp:server-'
        in deployment["metadata"]["annotations"][RESOLVED_ANNOTATION]
    )
    assert RESOLVED_ANNOTATION not in deployment["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("model", "engine", "strategy"),
    [
        ({}, {}, SURGE),
        ({"replicas": 3}, {}, SURGE),
        ({}, GPU, RECREATE),
        ({"replicas": 0}, GPU, RECREATE),
        ({"replicas": 2}, GPU, NO_SURGE),
        ({"gpus": 0}, GPU, SURGE),
        ({"rollout": {"strategy": "Recreate"}, "replicas": 3}, {}, RECREATE),
        ({"rollout": {"strategy": "RollingUpdate"}}, GPU, SURGE),
        ({}, {"cache": CLAIM}, RECREATE),
        ({"rollout": {"strategy": "RollingUpdate"}}, {"cache": CLAIM}, NO_SURGE),
        ({}, {"cache": SHARED_CLAIM}, SURGE),
        ({"source": {"uri": "pvc://weights/m.gguf"}}, {"cache": CLAIM}, SURGE),
    ],
)
def test_a_rollout_surges_only_where_a_spare_replica_can_start(
    make_model, make_engine, resolve, settings, model, engine, strategy
) -> None:
    resolved = resolve(make_model(**model), make_engine(**engine))
    assert by_kind(build_children(resolved, settings))["Deployment"]["spec"]["strategy"] == strategy


@pytest.mark.parametrize(("given", "expected"), [(None, 720), (100, 720), (5000, 5000)])
def test_a_rollout_has_time_for_a_whole_drain_and_start(
    make_model, make_engine, resolve, settings, given, expected
) -> None:
    rollout = {"drainTimeoutSeconds": 120, **({"progressDeadlineSeconds": given} if given else {})}
    spec = by_kind(build_children(resolve(make_model(rollout=rollout), make_engine()), settings))["Deployment"]["spec"]
    assert spec["progressDeadlineSeconds"] == expected


def test_the_service_is_headless_and_leaves_out_pods_that_are_not_routable(
    make_model, make_engine, resolve, settings
) -> None:
    children = by_kind(build_children(resolve(make_model(), make_engine()), settings))
    service, deployment = children["Service"]["spec"], children["Deployment"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"]["stoker.dev/routable"] == "true"
    # Taking the label off must not make the ReplicaSet start another pod.
    assert "stoker.dev/routable" not in deployment["selector"]["matchLabels"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()


def test_only_publishing_gateways_reach_the_engine_and_only_the_operator_the_agent(
    make_model, make_engine, resolve, settings
) -> None:
    resolved = resolve(make_model(), make_engine(), publishers=(("b", "g2"), ("a", "g1")))
    policy = by_kind(build_children(resolved, settings))["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    engine, agent = policy["ingress"]
    assert engine["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert [peer["podSelector"]["matchLabels"] for peer in engine["from"]] == [
        {"stoker.dev/api-gateway": "g1"},
        {"stoker.dev/api-gateway": "g2"},
    ]
    assert agent == {
        "from": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stoker-system"}},
                "podSelector": {"matchLabels": {"app": "stoker"}},
            }
        ],
        "ports": [{"port": 9100, "protocol": "TCP"}],
    }


def test_nobody_reaches_a_model_that_no_gateway_publishes(make_model, make_engine, resolve, settings) -> None:
    children = build_children(resolve(make_model(), make_engine()), settings)
    assert "Role" not in by_kind(children)
    ingress = by_kind(children)["NetworkPolicy"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in ingress] == [9100]


def test_publishing_gateways_may_see_the_endpoints_and_nothing_else(make_model, make_engine, resolve, settings) -> None:
    children = by_kind(build_children(resolve(make_model(), make_engine(), publishers=(("web", "gateway"),)), settings))
    assert children["Role"]["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    assert children["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": "gateway", "namespace": "web"}]
    assert children["RoleBinding"]["roleRef"]["name"] == children["Role"]["metadata"]["name"] == "smol-endpoints"


def test_a_gateway_of_the_same_namespace_needs_no_rights_from_the_model(
    make_model, make_engine, resolve, settings
) -> None:
    model = make_model()
    near = (model.metadata.namespace, "gateway")
    assert "Role" not in by_kind(build_children(resolve(model, make_engine(), publishers=(near,)), settings))
    children = by_kind(build_children(resolve(model, make_engine(), publishers=(near, ("web", "far"))), settings))
    assert [subject["name"] for subject in children["RoleBinding"]["subjects"]] == ["far"]


def test_gpus_default_to_one_where_there_are_any(make_model, make_engine, resolve) -> None:
    assert resolve(make_model(), make_engine(**GPU)).gpus == 1
    assert resolve(make_model(), make_engine()).gpus == 0
    assert resolve(make_model(gpus=4), make_engine(**GPU)).gpus == 4


@pytest.mark.parametrize("deleted", [True, False])
def test_a_missing_engine_is_told_by_name(make_model, make_engine, resolve, deleted) -> None:
    engine = make_engine(metadata={"deletionTimestamp": "2026-01-02T00:00:00Z"}) if deleted else None
    with pytest.raises(Stalled) as caught:
        resolve(make_model(), engine)
    assert caught.value.reason == "EngineNotFound"
    assert "InferenceEngine llama, which does not exist in namespace team: create it" in caught.value.message


@pytest.mark.parametrize(
    ("model", "engine", "reason"),
    [
        ({"source": {"uri": "https://host/m.bin"}}, {}, "InvalidSource"),
        ({"gpus": 1}, {}, "UnsupportedField"),
        ({"args": ["--port=1"]}, {}, "ManagedArgument"),
        ({}, {"args": ["--port=1"]}, "ManagedArgument"),
        ({"env": [{"name": "LLAMA_ARG_PORT", "value": "1"}]}, {}, "ManagedArgument"),
        ({"resources": {"limits": {"cpu": "many"}}}, {}, "InvalidSpec"),
        ({"resources": {"limits": {"memory": "much"}}}, {}, "InvalidSpec"),
        ({"replicas": 2}, {"cache": CLAIM}, "CacheNotShareable"),
        ({"autoscaling": {"maxReplicas": 2}}, {"cache": CLAIM}, "CacheNotShareable"),
        ({"gateways": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a"}]}}}, {}, "InvalidSelector"),
    ],
)
def test_what_cannot_work_is_refused_before_a_pod_exists(
    make_model, make_engine, resolve, model, engine, reason
) -> None:
    with pytest.raises(Stalled) as caught:
        resolve(make_model(**model), make_engine(**engine))
    assert caught.value.reason == reason


@pytest.mark.parametrize("cache", [SHARED_CLAIM, {"type": "EmptyDir"}, {"type": "HostPath", "path": "/srv"}])
def test_several_replicas_work_on_caches_that_can_be_shared(make_model, make_engine, resolve, cache) -> None:
    assert resolve(make_model(replicas=5), make_engine(cache=cache)).replicas == 5


def test_a_pod_template_is_refused_where_the_admin_forbids_it(make_model, make_engine, resolve, settings) -> None:
    engine = make_engine(podTemplate={"spec": {"hostNetwork": True}})
    with pytest.raises(Stalled) as caught:
        resolve(make_model(), engine, settings=replace(settings, allow_pod_template=False))
    assert caught.value.reason == "PodTemplateForbidden"


def test_everything_that_pods_need_is_looked_for(make_model, make_engine, resolve) -> None:
    model = make_model(
        source={"uri": "https://host/m.gguf", "secretRef": {"name": "hub"}},
        chatTemplate={"configMapRef": {"name": "templates"}},
        env=[
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "b"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "o", "key": "a", "optional": True}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "E", "value": "x"},
        ],
    )
    engine = make_engine(
        env=[{"name": "F", "valueFrom": {"secretKeyRef": {"name": "e", "key": "f"}}}],
        envFrom=[
            {"secretRef": {"name": "all"}},
            {"configMapRef": {"name": "more"}},
            {"secretRef": {"name": "o", "optional": True}},
        ],
    )
    assert [(r.kind, r.name, r.key) for r in referenced_objects(resolve(model, engine))] == [
        ("Secret", "hub", "token"),
        ("ConfigMap", "templates", "chat-template.jinja"),
        ("Secret", "e", "f"),
        ("Secret", "s", "a"),
        ("ConfigMap", "c", "b"),
        ("Secret", "all", ""),
        ("ConfigMap", "more", ""),
    ]
    on_claim = resolve(make_model(source={"uri": "pvc://weights/m.gguf"}), make_engine())
    assert referenced_objects(on_claim) == (Reference("PersistentVolumeClaim", "weights", "", "spec.source.uri"),)


def test_a_missing_reference_is_looked_for_again(make_model) -> None:
    error = missing_reference(make_model(), Reference("Secret", "hub", "token", "spec.source.secretRef"))
    assert isinstance(error, Waiting)
    assert (error.reason, error.retry_after) == ("SecretNotFound", 15.0)
    assert "needs Secret hub with key 'token' in namespace team (spec.source.secretRef): create it" in error.message
    claim = missing_reference(make_model(), Reference("PersistentVolumeClaim", "weights", "", "spec.source.uri"))
    assert claim.reason == "ClaimNotFound"
    assert "key" not in claim.message


def test_the_strategy_does_not_come_and_go_with_the_load(make_model, make_engine, resolve, settings) -> None:
    model = make_model(autoscaling={"minReplicas": 0, "maxReplicas": 4}, gpus=1)
    engine = make_engine(accelerator={"vendor": "NVIDIA"})
    strategies, replicas = [], []
    for scaled in (0, 1, 4):
        child = build_children(resolve(model, engine, scaled=scaled), settings)[-1]
        strategies.append(child["spec"]["strategy"])
        replicas.append(child["spec"]["replicas"])
    assert strategies == [{"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}] * 3
    assert replicas == [0, 1, 4]


def test_scaling_and_suspending_choose_nothing_anew(make_model, make_engine, resolve) -> None:
    before = resolve(make_model(), make_engine()).chosen
    for change in ({"autoscaling": {"maxReplicas": 4}}, {"suspend": True}, {"coldStart": {"mode": "Reject"}}):
        assert resolve(make_model(**change), make_engine()).chosen == before
