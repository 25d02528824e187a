from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from stoker.api.resolved import OperatorSettings, PublishedModel, ResolvedApiGateway
from stoker.desired import gateway_config
from stoker.desired.api_gateway import build_children, build_secrets, build_workload
from stoker.errors import Stalled


@pytest.fixture
def resolved(make_gateway):
    def resolve(models=(), keys=(), **spec):
        published = tuple(PublishedModel(model, model.spec.replicas == 0) for model in models)
        return ResolvedApiGateway(make_gateway(**spec), published, tuple(keys), "secret-token")

    return resolve


def by_kind(children) -> dict[str, dict]:
    return {child["kind"]: child for child in children}


def content(secret: dict) -> dict:
    (text,) = secret["data"].values()
    return json.loads(base64.b64decode(text))


def test_the_children_are_complete_and_belong_to_the_gateway(resolved, settings) -> None:
    children = build_children(resolved(), settings)
    assert [child["kind"] for child in children] == [
        "Secret", "Secret", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Service", "PodDisruptionBudget", "ApiKey",
        "Deployment",
    ]  # fmt: skip
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == "uid-gateway" for child in children)
    assert build_children(resolved(), settings) == children


def test_models_and_keys_change_secrets_and_nothing_else(resolved, make_model, make_key, settings) -> None:
    full = resolved([make_model()], [make_key(sha256="a" * 64)])
    assert build_workload(full, settings) == build_workload(resolved(), settings)
    assert build_secrets(full) != build_secrets(resolved())


def test_a_single_replica_needs_no_disruption_budget_and_no_admin_key_is_forced(resolved, settings) -> None:
    kinds = by_kind(build_children(resolved(replicas=1, auth={"adminKey": False}), settings))
    assert "PodDisruptionBudget" not in kinds
    assert "ApiKey" not in kinds


def test_the_admin_key_opens_this_gateway_and_all_its_models(resolved, settings) -> None:
    key = by_kind(build_children(resolved(), settings))["ApiKey"]
    assert key["metadata"]["name"] == "gateway-admin"
    assert key["spec"]["gatewayRef"] == {"name": "gateway"}
    assert key["spec"]["models"] == ["*"]


@pytest.mark.parametrize(
    ("expose", "type_", "port"),
    [
        ({}, "ClusterIP", {"port": 80}),
        ({"type": "NodePort", "nodePort": 30080}, "NodePort", {"port": 80, "nodePort": 30080}),
        ({"type": "LoadBalancer", "port": 8443}, "LoadBalancer", {"port": 8443}),
    ],
)
def test_the_service_is_exposed_as_asked(resolved, settings, expose, type_, port) -> None:
    service = by_kind(build_children(resolved(expose=expose), settings))["Service"]
    assert service["spec"]["type"] == type_
    assert service["spec"]["ports"] == [{"name": "http", "protocol": "TCP", "targetPort": "http", **port}]


def test_a_load_balancer_gets_its_class_and_annotations(resolved, settings) -> None:
    expose = {"type": "LoadBalancer", "loadBalancerClass": "example.com/lb", "annotations": {"a": "b"}}
    service = by_kind(build_children(resolved(expose=expose), settings))["Service"]
    assert service["spec"]["loadBalancerClass"] == "example.com/lb"
    assert service["metadata"]["annotations"] == {"a": "b"}


def test_everybody_reaches_envoy_and_only_the_operator_the_policy_service(resolved, settings) -> None:
    ingress = by_kind(build_children(resolved(), settings))["NetworkPolicy"]["spec"]["ingress"]
    assert ingress[0] == {"ports": [{"port": 8080, "protocol": "TCP"}]}
    assert ingress[1]["ports"] == [{"port": 9090, "protocol": "TCP"}]
    assert ingress[1]["from"][0]["podSelector"]["matchLabels"] == {"app": "stoker"}


def test_a_networkpolicy_names_nobody_for_the_port_that_drains(resolved, settings) -> None:
    """The kubelet of a pod's own node is let in by every network plugin."""
    made = build_children(resolved(portal={}, expose={"hostname": "llm.example.com"}), settings)
    gateway = {
        child["kind"]: child["spec"] for child in made if child["metadata"]["name"] == "gateway" and "spec" in child
    }
    hook = gateway["Deployment"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]
    assert hook == {"path": "/drain", "port": 9091}
    assert [rule["ports"] for rule in gateway["NetworkPolicy"]["ingress"]] == [
        [{"port": 8080, "protocol": "TCP"}],
        [{"port": 9090, "protocol": "TCP"}],
    ]
    services = [child["spec"]["ports"] for child in made if child["kind"] == "Service"]
    assert not {"drain", 9091} & {port["targetPort"] for ports in services for port in ports}


def test_the_policy_service_reads_its_own_secrets_and_endpoints_only(resolved, settings) -> None:
    rule, slices = by_kind(build_children(resolved(), settings))["Role"]["rules"]
    assert rule["resources"] == ["secrets"]
    assert rule["resourceNames"] == ["gateway-routes", "gateway-keys-0"]
    assert rule["verbs"] == ["get", "list", "watch"]
    assert (slices["resources"], slices["verbs"]) == (["endpointslices"], ["get", "list", "watch"])


def test_routes_tell_models_limits_and_where_the_keys_are(resolved, make_model) -> None:
    models = [make_model(aliases=["gpt-4o"], task="Embedding"), make_model("off", replicas=0)]
    routes = content(build_secrets(resolved(models, limits={"maxRequestBytes": "1Mi"}))[-1])
    assert routes["maxRequestBytes"] == 2**20
    assert routes["token"] == "secret-token"
    assert routes["keySecrets"] == ["gateway-keys-0"]
    first, second = routes["models"]
    assert first == {
        "name": "smol",
        "aliases": ["gpt-4o"],
        "namespace": "team",
        "deployment": "smol",
        "cluster": "team/smol",
        "service": "smol",
        "port": 8080,
        "task": "Embedding",
        "paths": ["/v1/embeddings"],
        "stopped": False,
        "sleeping": False,
        "slots": 4,
        "hold": None,
        "createdAt": 1767225600,
    }
    assert second["stopped"] is True


def test_roles_and_limits_are_told_and_built_in_roles_are_there(resolved, make_key) -> None:
    roles = [{"name": "user", "models": ["qwen*"], "limits": {"requestsPerMinute": 5}}]
    keys = [make_key("a", sha256="a" * 64, role="user"), make_key("b", sha256="b" * 64, role="gone"), make_key("c", sha256="c" * 64, role="admin", limits={"requestsPerMinute": 7})]  # fmt: skip
    found = replace(resolved(keys=keys, roles=roles, limits={"requestsPerMinute": 60}), ready_replicas=2)
    secret, routes = (content(made) for made in build_secrets(found))
    assert routes["roles"] == [
        {"name": "admin", "models": ["*"]},
        {"name": "user", "models": ["qwen*"], "requestsPerMinute": 5},
    ]
    assert (routes["requestsPerMinute"], routes["replicas"]) == (60, 2)
    assert [(row["name"], row["role"], row.get("requestsPerMinute")) for row in secret["keys"]] == [("a", "user", None), ("c", "admin", 7)]  # fmt: skip
    assert content(build_secrets(resolved())[-1])["replicas"] == 1, "nobody is ready yet"


def test_with_tls_the_service_has_the_port_of_https_and_the_pods_may_read_the_certificate(resolved, settings) -> None:
    made = build_workload(resolved(expose={"tls": {"secretName": "front"}}), settings)
    service = by_kind(made)["Service"]
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("https", 443)]
    role = by_kind(made)["Role"]
    assert "front" in role["rules"][0]["resourceNames"]
    assert content(build_secrets(resolved(expose={"tls": {"secretName": "front"}}))[-1])["tls"] == "front"


def test_keys_are_hashes_with_the_earlier_of_both_ends(resolved, make_key) -> None:
    status = {
        "keys": [
            {"sha256": "b" * 64, "createdAt": "2026-01-01T00:00:00Z"},
            {"sha256": "c" * 64, "createdAt": "2025-01-01T00:00:00Z", "expiresAt": "2026-01-01T00:10:00Z"},
        ]
    }
    keys = [
        make_key("own", sha256="a" * 64, owner="ci", models=["qwen*"]),
        make_key("made", expiresAt="2027-01-01T00:00:00Z", status=status),
    ]
    secret, _ = build_secrets(resolved(keys=keys))
    assert secret["metadata"]["name"] == "gateway-keys-0"
    assert content(secret)["keys"] == [
        {"sha256": "b" * 64, "name": "made", "owner": "", "models": ["*"], "role": None, "expiresAt": 1798761600},
        {"sha256": "c" * 64, "name": "made", "owner": "", "models": ["*"], "role": None, "expiresAt": 1767226200},
        {"sha256": "a" * 64, "name": "own", "owner": "ci", "models": ["qwen*"], "role": None, "expiresAt": None},
    ]


def test_suspended_and_deleted_keys_are_not_handed_out(resolved, make_key) -> None:
    keys = [
        make_key("suspended", sha256="a" * 64, suspend=True),
        make_key("deleted", sha256="b" * 64, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        make_key("new"),
    ]
    assert content(build_secrets(resolved(keys=keys))[0])["keys"] == []


def test_many_keys_are_spread_and_a_new_one_changes_one_secret(resolved, make_key, settings, monkeypatch) -> None:
    monkeypatch.setattr(gateway_config, "KEY_SECRET_BYTES", 1500)
    keys = [make_key(f"k{n}", sha256=f"{n * 7919 % 2**32:08x}" + "0" * 56) for n in range(40)]
    before = build_secrets(resolved(keys=keys))
    names = [secret["metadata"]["name"] for secret in before]
    assert names == [*(f"gateway-keys-{n}" for n in range(len(before) - 1)), "gateway-routes"]
    assert len(before) > 3
    assert content(before[-1])["keySecrets"] == names[:-1]
    assert by_kind(build_workload(resolved(keys=keys), settings))["Role"]["rules"][0]["resourceNames"] == [
        "gateway-routes",
        *names[:-1],
    ]
    assert sum(len(content(secret)["keys"]) for secret in before[:-1]) == 40
    # Replaced by one of the same length, so that the number of Secrets stays.
    after = build_secrets(resolved(keys=[*keys[:-1], make_key("k39", sha256="f" * 64)]))
    assert 1 <= sum(one != other for one, other in zip(before, after, strict=True)) <= 2


def policy_env(children) -> dict[str, str]:
    (policy,) = by_kind(children)["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    return {variable["name"]: variable["value"] for variable in policy["env"]}


def test_the_policy_service_is_a_sidecar_with_the_only_token(resolved, settings) -> None:
    children = build_children(resolved(), settings)
    spec = by_kind(children)["Deployment"]["spec"]["template"]["spec"]
    (policy,), (envoy,) = spec["initContainers"], spec["containers"]
    assert policy["restartPolicy"] == "Always"
    assert spec["automountServiceAccountToken"] is False
    assert "token" in {mount["name"] for mount in policy["volumeMounts"]}
    assert "token" not in {mount["name"] for mount in envoy["volumeMounts"]}
    assert policy["securityContext"] == envoy["securityContext"]
    assert policy["securityContext"]["runAsUser"] == 65532
    assert policy_env(children)["STOKER_GATEWAY_NAME"] == "gateway"
    assert policy_env(children)["STOKER_GATEWAY_NAMESPACE"] == "team"


def test_streams_have_time_to_end_before_the_pod_does(resolved, settings) -> None:
    children = build_children(resolved(), settings)
    spec = by_kind(children)["Deployment"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["lifecycle"]["preStop"]["httpGet"] == {"path": "/drain", "port": 9091}
    assert int(policy_env(children)["STOKER_DRAIN_SECONDS"]) < spec["terminationGracePeriodSeconds"]


def test_a_gateway_is_never_rolled_below_its_replicas(resolved, settings) -> None:
    strategy = by_kind(build_children(resolved(), settings))["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_envoy_refuses_requests_before_it_meets_its_memory_limit(resolved, settings) -> None:
    assert "STOKER_ENVOY_HEAP_BYTES" not in policy_env(build_children(resolved(), settings))
    children = build_children(resolved(resources={"limits": {"memory": "1000Mi"}}), settings)
    assert policy_env(children)["STOKER_ENVOY_HEAP_BYTES"] == str(900 * 2**20)
    with pytest.raises(Stalled, match="InvalidSpec"):
        build_children(resolved(resources={"limits": {"memory": "much"}}), settings)


@pytest.mark.parametrize(
    ("limits", "workers"), [(None, "2"), ({"cpu": "500m"}, "1"), ({"cpu": "3500m"}, "4"), ({"memory": "1Gi"}, "2")]
)
def test_envoy_has_as_many_workers_as_cores_to_use(resolved, settings, limits, workers) -> None:
    spec = {"resources": {"limits": limits}} if limits else {}
    deployment = by_kind(build_children(resolved(**spec), settings))["Deployment"]
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--concurrency") + 1] == workers


def test_resources_of_envoy_have_a_default(resolved, settings) -> None:
    def envoy(**spec):
        return by_kind(build_children(resolved(**spec), settings))["Deployment"]["spec"]["template"]["spec"][
            "containers"
        ][0]

    assert envoy()["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    assert envoy(resources={"requests": {"cpu": "1"}})["resources"] == {"requests": {"cpu": "1"}}


def test_a_pod_template_and_pull_secrets_are_added(resolved) -> None:
    settings = OperatorSettings(stoker_image="stoker:1", image_pull_secrets=("registry",))
    patch = {"metadata": {"labels": {"stoker.dev/api-gateway": "other"}}, "spec": {"nodeSelector": {"a": "b"}}}
    template = by_kind(build_children(resolved(podTemplate=patch), settings))["Deployment"]["spec"]["template"]
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert template["spec"]["nodeSelector"] == {"a": "b"}
    assert template["metadata"]["labels"]["stoker.dev/api-gateway"] == "gateway"


def test_a_service_account_made_anew_replaces_the_pods_whose_tokens_died_with_it(resolved, settings) -> None:
    templates = [
        by_kind(build_workload(replace(resolved(), account_uid=uid), settings))["Deployment"]["spec"]["template"]
        for uid in ("first", "first", "second")
    ]
    assert templates[0] == templates[1] != templates[2]


def test_a_model_that_scales_itself_holds_requests_and_one_with_a_cold_start_of_its_own_by_its_terms(
    resolved, make_model
) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 2}
    usual = {"mode": "Hold", "maxWaitSeconds": 600, "maxHeldRequests": 100, "heartbeatSeconds": 10}
    models = [
        make_model("a", autoscaling=scaling),
        make_model("b", autoscaling=scaling, coldStart={"mode": "Reject"}),
        make_model("c", coldStart={"maxWaitSeconds": 5}),
        make_model("d"),
    ]
    routes = content(build_secrets(resolved(models))[-1])
    assert [model["hold"] for model in routes["models"]] == [
        {**usual, "coldStartSeconds": None},
        {**usual, "mode": "Reject", "coldStartSeconds": None},
        {**usual, "maxWaitSeconds": 5, "coldStartSeconds": None},
        None,
    ]
    assert [model["sleeping"] for model in routes["models"]] == [True, True, False, False]


def test_replicas_are_told_where_they_count_together_and_a_missing_address_is_told(resolved, make_gateway) -> None:
    told = content(build_secrets(replace(resolved(), redis_url="redis://r:6379/0"))[-1])
    assert told["redisUrl"] == "redis://r:6379/0"
    assert content(build_secrets(resolved())[-1])["redisUrl"] is None
    gateway = make_gateway(limits={"redisSecretRef": {"name": "shared"}})
    gateway_config.check_redis(gateway, "rediss://r:6379/0")
    gateway_config.check_redis(make_gateway(), "")
    for url in ("", "http://r/"):
        with pytest.raises(Stalled, match="shared") as refused:
            gateway_config.check_redis(gateway, url)
        assert refused.value.reason == "RedisAddressMissing"


def test_limits_of_users_and_models_are_told(resolved) -> None:
    limits = {
        "perUser": {"tokensPerMinute": 9},
        "models": [{"models": ["q*"], "concurrentRequests": 2}],
        "maxTokensPerRequest": 5,
    }
    told = content(build_secrets(resolved(limits=limits))[-1])
    assert told["perUser"] == {"tokensPerMinute": 9}
    assert told["modelLimits"] == [{"models": ["q*"], "concurrentRequests": 2}]
    assert told["maxTokensPerRequest"] == 5


def test_adapters_that_a_body_could_name_are_told_by_name(make_gateway, make_model) -> None:
    adapters = [{"name": name, "source": {"uri": f"pvc://w/{name}.gguf"}} for name in ("legal", "medical")]
    model = make_model(aliases=["other"], adapters=adapters)

    def told(engine_type: str) -> Any:
        published = PublishedModel(model, stopped=False, engine_type=engine_type)
        secrets = build_secrets(ResolvedApiGateway(make_gateway(), (published,), (), "token"))
        (entry,) = json.loads(base64.b64decode(secrets[-1]["data"]["routes.json"]))["models"]
        return entry.get("additions")

    assert told("LlamaCpp") == {
        "smol": {"lora": []},
        "other": {"lora": []},
        "legal": {"lora": [{"id": 0, "scale": 1.0}]},
        "medical": {"lora": [{"id": 1, "scale": 1.0}]},
    }
    assert told("VLLM") is None
    assert told("SGLang") == {name: {"lora_path": None} for name in ("smol", "other", "legal", "medical")}
