from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest

from stoker.cluster.compare import content_hash, find_drift, parse_quantity

DEPLOYMENT: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "a", "labels": {"app": "a"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "engine",
                        "image": "engine:1",
                        "args": ["--port", "8080"],
                        "env": [{"name": "HOME", "value": "/tmp"}],
                        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": 1}},
                        "ports": [{"name": "http", "containerPort": 8080}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
            }
        },
    },
}


def as_stored(change: Any = None) -> dict[str, Any]:
    """With what the API server adds and rewrites."""
    live = copy.deepcopy(DEPLOYMENT)
    live["status"] = {"replicas": 1}
    live["metadata"] |= {"uid": "1", "resourceVersion": "5", "annotations": {"deployment.kubernetes.io/revision": "1"}}
    pod = live["spec"]["template"]["spec"]
    pod |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    pod["containers"][0]["resources"] = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1"}}
    pod["containers"][0]["ports"][0]["protocol"] = "TCP"
    pod["volumes"][0]["emptyDir"]["sizeLimit"] = "1024Mi"
    if change:
        change(live)
    return live


def container(live: dict[str, Any]) -> dict[str, Any]:
    return live["spec"]["template"]["spec"]["containers"][0]


def test_defaults_and_rewritten_quantities_are_no_drift() -> None:
    assert find_drift(DEPLOYMENT, as_stored()) == frozenset()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda o: o["spec"].update(replicas=2), ".spec.replicas"),
        (lambda o: container(o).update(image="other"), ".spec.template.spec.containers[engine].image"),
        (lambda o: container(o)["args"].append("--x"), ".spec.template.spec.containers[engine].args"),
        (lambda o: container(o)["args"].reverse(), ".spec.template.spec.containers[engine].args[0]"),
        (lambda o: container(o)["env"].clear(), ".spec.template.spec.containers[engine].env[HOME]"),
        (
            lambda o: container(o)["resources"]["requests"].update(cpu="501m"),
            ".spec.template.spec.containers[engine].resources.requests.cpu",
        ),
        (lambda o: o["metadata"]["labels"].clear(), ".metadata.labels.app"),
        (lambda o: o["spec"]["selector"]["matchLabels"].update(x="y"), ".spec.selector.matchLabels.x"),
        (lambda o: o["spec"]["template"].update(spec=None), ".spec.template.spec"),
    ],
)
def test_an_edit_of_our_fields_is_drift(change: Any, path: str) -> None:
    assert path in find_drift(DEPLOYMENT, as_stored(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o["metadata"]["labels"].update(theirs="x"),
        lambda o: container(o)["env"].append({"name": "THEIRS", "value": "x"}),
        lambda o: o["spec"]["template"]["spec"]["containers"].append({"name": "theirs"}),
    ],
)
def test_what_others_may_add_is_no_drift(change: Any) -> None:
    assert find_drift(DEPLOYMENT, as_stored(change)) == frozenset()


def test_an_ingress_rule_too_many_or_a_wider_one_is_drift() -> None:
    rule = {"from": [{"podSelector": {}}], "ports": [{"port": 8080, "protocol": "TCP"}]}
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": {"ingress": [rule]}}
    assert not find_drift(policy, copy.deepcopy(policy))
    for wider in (
        {"spec": {"ingress": [rule, {}]}},
        {"spec": {"ingress": [{**rule, "from": [*rule["from"], {"podSelector": {}}]}]}},
        {"spec": {"ingress": [{**rule, "ports": [{"port": 8080, "protocol": "TCP", "endPort": 9999}]}]}},
        {"spec": {"ingress": [{"ports": rule["ports"]}]}},
    ):
        assert find_drift(policy, {**policy, **wider}), wider


def test_a_right_too_many_is_drift() -> None:
    role = {"kind": "Role", "metadata": {"name": "a"}, "rules": [{"resources": ["secrets"], "resourceNames": ["a"]}]}
    assert find_drift(role, {**role, "rules": [{"resources": ["secrets"], "resourceNames": ["a", "b"]}]})
    assert find_drift(role, {**role, "rules": [{"resources": ["secrets"]}]})
    assert not find_drift(role, {**role, "metadata": {"name": "a", "labels": {"theirs": "x"}}})


def test_a_selector_key_too_many_of_a_service_is_drift() -> None:
    service = {"kind": "Service", "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "http"}]}}
    live = {**service, "spec": {**service["spec"], "clusterIP": "10.0.0.1", "selector": {"app": "a", "x": "y"}}}
    assert find_drift(service, live) == {".spec.selector.x"}


def test_the_hash_depends_on_content_only() -> None:
    other_order = {key: DEPLOYMENT[key] for key in reversed(DEPLOYMENT)}
    assert content_hash(other_order) == content_hash(DEPLOYMENT)
    assert content_hash({**DEPLOYMENT, "spec": {}}) != content_hash(DEPLOYMENT)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        (2, 2),
        ("500m", "0.5"),
        ("1.5Gi", 1610612736),
        ("2k", 2000),
        ("3E", 3 * 10**18),
        ("1e3", 1000),
        ("1Ei", 2**60),
    ],
)
def test_quantities_are_read_as_kubernetes_does(text: str | int, number: Any) -> None:
    assert parse_quantity(text) == Decimal(number)
