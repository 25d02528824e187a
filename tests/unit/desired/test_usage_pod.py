from __future__ import annotations

import base64
from dataclasses import replace

from stoker.api.resolved import ResolvedApiGateway
from stoker.desired.api_gateway import build_children
from stoker.desired.gateway_config import build_secrets
from stoker.desired.usage_pod import build_usage


def made(make_gateway, settings, **usage):
    children = build_usage(make_gateway(usage=usage), "secret-token", settings)
    return {(child["kind"], child["metadata"]["name"]): child for child in children}


def test_usage_has_a_pod_a_volume_and_two_addresses(make_gateway, settings) -> None:
    children = made(make_gateway, settings)
    assert list(children) == [
        ("ServiceAccount", "gateway-usage"), ("Role", "gateway-usage"), ("RoleBinding", "gateway-usage"), ("Secret", "gateway-usage"),
        ("Service", "gateway-pods"), ("Service", "gateway-usage"), ("NetworkPolicy", "gateway-usage"),
        ("PersistentVolumeClaim", "gateway-usage"), ("StatefulSet", "gateway-usage"),
    ]  # fmt: skip
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == "uid-gateway" for child in children.values())
    pods = children["Service", "gateway-pods"]["spec"]
    assert (pods["clusterIP"], pods["publishNotReadyAddresses"]) == ("None", True)
    assert pods["selector"]["app.kubernetes.io/component"] == "gateway"
    assert base64.b64decode(children["Secret", "gateway-usage"]["data"]["token"]) == b"secret-token"
    claim = children["PersistentVolumeClaim", "gateway-usage"]["spec"]
    assert (claim["resources"], "storageClassName" in claim) == ({"requests": {"storage": "1Gi"}}, False)


def test_the_pod_is_restricted_and_reads_nothing_but_endpoints(make_gateway, settings) -> None:
    children = made(make_gateway, settings)
    spec = children["StatefulSet", "gateway-usage"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [rule["resources"] for rule in children["Role", "gateway-usage"]["rules"]] == [["endpointslices"]]
    (ingress,) = children["NetworkPolicy", "gateway-usage"]["spec"]["ingress"]
    assert ingress["ports"] == [{"port": 8090, "protocol": "TCP"}]
    assert ingress["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_with_a_database_there_is_no_volume(make_gateway, settings) -> None:
    children = made(
        make_gateway,
        settings,
        databaseSecretRef={"name": "pg"},
        retentionDays=7,
        resources={"limits": {"memory": "1Gi"}},
    )
    assert ("PersistentVolumeClaim", "gateway-usage") not in children
    spec = children["StatefulSet", "gateway-usage"]["spec"]["template"]["spec"]
    assert {"name": "data", "emptyDir": {}} in spec["volumes"]
    (container,) = spec["containers"]
    env = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert env["STOKER_USAGE_DATABASE_URL"] == {"secretKeyRef": {"name": "pg", "key": "url"}}
    assert env["STOKER_USAGE_RETENTION_DAYS"] == "7"
    assert container["resources"] == {"limits": {"memory": "1Gi"}}


def test_the_volume_is_as_asked_for(make_gateway, settings) -> None:
    claim = made(make_gateway, settings, storage={"size": "5Gi", "storageClassName": "fast"})[
        "PersistentVolumeClaim", "gateway-usage"
    ]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "fast",
    }  # fmt: skip


def test_switched_off_nothing_is_made_and_pods_do_not_ask(make_gateway, settings) -> None:
    assert not made(make_gateway, settings, enabled=False)
    on, off = (ResolvedApiGateway(make_gateway(usage={"enabled": enabled}), (), (), "t") for enabled in (True, False))

    def told(resolved: ResolvedApiGateway) -> bytes:
        return base64.b64decode(build_secrets(resolved)[-1]["data"]["routes.json"])

    assert b'"usageUrl":"http://gateway-usage.' in told(on)
    assert b'"usageUrl":null' in told(off)
    policies = [child for child in build_children(replace(off), settings) if child["kind"] == "NetworkPolicy"]
    assert len(policies[0]["spec"]["ingress"][1]["from"]) == 1
