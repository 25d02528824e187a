"""The operator's rights: enough, explained, and no more."""

from __future__ import annotations

import pytest
import yaml

from stoker.cluster.resource_types import EVENTS, LEASES, OWN_TYPES, PODS, SECRETS, WATCHED_CHILD_TYPES
from stoker.cluster.resource_types import NAMESPACES as NAMESPACE_TYPE
from stoker.codegen import rbac


def held(rules: tuple[rbac.Rule, ...], group: str, resource: str) -> set[str]:
    return {verb for rule in rules if rule.group == group and resource in rule.resources for verb in rule.verbs}


@pytest.mark.parametrize("name", rbac.PARTIALS)
def test_every_rule_says_why(name: str) -> None:
    for rule in rbac.PARTIALS[name]:
        assert rule.why.endswith(".")


@pytest.mark.parametrize("name", rbac.PARTIALS)
def test_no_rule_grants_everything(name: str) -> None:
    for rule in rbac.PARTIALS[name]:
        assert "*" not in (rule.group, *rule.resources, *rule.verbs)
        assert not {"escalate", "bind", "impersonate"} & set(rule.verbs)


def test_the_text_is_yaml_with_the_reasons_as_comments() -> None:
    text = rbac.rules_text(rbac.NAMESPACED)
    assert len(yaml.safe_load(text)) == len(rbac.NAMESPACED)
    assert all(f"# {rule.why}\n" in text for rule in rbac.NAMESPACED)


def test_specs_of_the_users_are_never_written_but_for_the_admin_key() -> None:
    writing = {"create", "update", "patch", "delete", "deletecollection"}
    written = {kind for kind in rbac.OURS if held(rbac.NAMESPACED, "stoker.dev", kind) & writing}
    assert written == {"apikeys"}


def test_what_gateways_are_granted_the_operator_holds_itself() -> None:
    assert held(rbac.NAMESPACED, "", "secrets") >= {"get", "list", "watch"}
    assert held(rbac.NAMESPACED, "discovery.k8s.io", "endpointslices") == {"get", "list", "watch"}


def test_a_namespaced_operator_sees_neither_nodes_nor_namespaces() -> None:
    for group, resource in (("", "nodes"), ("", "namespaces"), ("resource.k8s.io", "resourceslices")):
        assert held(rbac.NAMESPACED, group, resource) == set()
        assert held(rbac.OWN_NAMESPACE, group, resource) == set()
        assert held(rbac.CLUSTER, group, resource) == {"get", "list", "watch"}


def test_viewers_only_read() -> None:
    assert {verb for rule in rbac.VIEW for verb in rule.verbs} == {"get", "list", "watch"}


def test_what_the_cluster_package_watches_and_writes_is_granted() -> None:
    for child in WATCHED_CHILD_TYPES:
        assert held(rbac.NAMESPACED, child.group, child.plural) == set(rbac.CHILD), child
    for own in OWN_TYPES:
        assert held(rbac.NAMESPACED, own.group, own.plural) >= set(rbac.READ)
        assert held(rbac.NAMESPACED, own.group, f"{own.plural}/status") >= {"patch"}
    assert held(rbac.NAMESPACED, PODS.group, PODS.plural) >= set(rbac.READ)
    assert held(rbac.NAMESPACED, SECRETS.group, SECRETS.plural) >= {"get", "create", "patch", "delete"}
    assert held(rbac.NAMESPACED, EVENTS.group, EVENTS.plural) >= {"create"}
    assert held(rbac.OWN_NAMESPACE, LEASES.group, LEASES.plural) >= {"get", "create"}
    assert held(rbac.CLUSTER, NAMESPACE_TYPE.group, NAMESPACE_TYPE.plural) == set(rbac.READ)
