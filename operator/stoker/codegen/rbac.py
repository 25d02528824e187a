"""What the operator may do, rule by rule, each with its reason: the one source of the chart's and deploy/'s roles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from stoker.api import GROUP, KINDS, ApiKey

READ = ("get", "list", "watch")
CHILD = (*READ, "create", "patch", "delete")
OURS = tuple(kind.info.plural for kind in KINDS)


@dataclass(frozen=True)
class Rule:
    """One RBAC rule and why it is needed; the reason is printed above it."""

    why: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


NAMESPACED = (
    Rule("Stoker's kinds: read them.", GROUP, OURS, READ),
    Rule(
        "Stoker's kinds: report on them.",
        GROUP,
        tuple(f"{plural}/status" for plural in OURS),
        ("get", "patch", "update"),
    ),
    Rule("The <gateway>-admin key.", GROUP, (ApiKey.info.plural,), ("create", "patch", "delete")),
    Rule(
        "Children: engines, gateways, and what of a gateway has a volume.",
        "apps",
        ("deployments", "statefulsets"),
        CHILD,
    ),
    Rule(
        "Children: addresses, identities, weight caches, configuration files of engines; chat templates are read by name.",
        "",
        ("services", "serviceaccounts", "persistentvolumeclaims", "configmaps"),
        CHILD,
    ),
    Rule("Children: who may reach engines and gateways.", "networking.k8s.io", ("networkpolicies",), CHILD),
    Rule("Children: host names that lead to gateways.", "networking.k8s.io", ("ingresses",), CHILD),
    Rule(
        "Children: host names that lead to gateways, in clusters with the Gateway API; never watched.",
        "gateway.networking.k8s.io",
        ("httproutes",),
        ("get", "create", "patch", "delete"),
    ),
    Rule("Children: gateways stay up while nodes are drained.", "policy", ("poddisruptionbudgets",), CHILD),
    Rule(
        "Children: what a gateway's policy service may read.",
        "rbac.authorization.k8s.io",
        ("roles", "rolebindings"),
        CHILD,
    ),
    Rule(
        "Granted to gateways (nobody can grant what they do not hold): the endpoints of models.",
        "discovery.k8s.io",
        ("endpointslices",),
        READ,
    ),
    Rule(
        "Generated keys, gateway configuration, source tokens: by name, never listed; update guards rotations against races.",
        "",
        ("secrets",),
        ("get", "create", "update", "patch", "delete"),
    ),
    Rule(
        "Granted to gateways, for their own configuration Secrets by name; the operator itself does not use it.",
        "",
        ("secrets",),
        ("list", "watch"),
    ),
    Rule(
        "Pods: why they do not start, how far downloads are; patch takes one out of routing.",
        "",
        ("pods",),
        (*READ, "patch"),
    ),
    Rule("What an engine said before it ended, where its last words point further back.", "", ("pods/log",), ("get",)),
    Rule("Events on Stoker's kinds.", "", ("events",), ("create", "patch")),
    Rule("Events on Stoker's kinds.", "events.k8s.io", ("events",), ("create", "patch")),
)
"""In every watched namespace: as a ClusterRole where all are watched, else as a Role in each."""

CLUSTER = (
    Rule(
        "Whether a node offers the accelerator; which namespaces a selector means.", "", ("nodes", "namespaces"), READ
    ),
    Rule(
        "How large the devices of dynamic resource allocation are, where the cluster knows them.",
        "resource.k8s.io",
        ("resourceslices",),
        READ,
    ),
    Rule(
        "Framework: notices that the kinds are installed or changed.",
        "apiextensions.k8s.io",
        ("customresourcedefinitions",),
        READ,
    ),
)
"""Only where all namespaces are watched."""

OWN_NAMESPACE = (Rule("Leader election.", "coordination.k8s.io", ("leases",), ("get", "create", "patch", "update")),)
"""In the operator's own namespace."""

VIEW = (
    Rule("Joined to the built-in view role.", GROUP, OURS, READ),
    Rule("Joined to the built-in view role.", GROUP, ("modeldeployments/scale",), ("get",)),
)
EDIT = (
    Rule(
        "Joined to the built-in edit and admin roles.",
        GROUP,
        OURS,
        ("create", "update", "patch", "delete", "deletecollection"),
    ),
    Rule("Joined to the built-in edit and admin roles.", GROUP, ("modeldeployments/scale",), ("update", "patch")),
)

PARTIALS = {
    "stoker.rules.namespaced": NAMESPACED,
    "stoker.rules.cluster": CLUSTER,
    "stoker.rules.ownNamespace": OWN_NAMESPACE,
    "stoker.rules.view": VIEW,
    "stoker.rules.edit": EDIT,
}


def rules_text(rules: Iterable[Rule]) -> str:
    """The rules as YAML list items, each under its reason."""
    lines: list[str] = []
    previous = ""
    for rule in rules:
        if rule.why != previous:
            lines.append(f"# {rule.why}\n")
        previous = rule.why
        lines.append(
            f"- apiGroups: {json.dumps([rule.group])}\n"
            f"  resources: {json.dumps(rule.resources)}\n"
            f"  verbs: {json.dumps(rule.verbs)}\n"
        )
    return "".join(lines)


def build_partials() -> str:
    """The chart's named templates, which templates/rbac.yaml puts into roles."""
    head = "{{/* Written by `make generate` from operator/stoker/codegen/rbac.py; do not edit. */}}\n"
    return head + "".join(
        f'{{{{- define "{name}" -}}}}\n{rules_text(rules)}{{{{- end }}}}\n' for name, rules in PARTIALS.items()
    )
