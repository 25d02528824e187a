"""The chart and the plain manifests: rendered by helm, judged by a real API server."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.api_server import BIN, ROOT, ApiServer

from stoker.api import KINDS
from stoker.codegen.files import OWN_REGISTRY

pytestmark = pytest.mark.integration

Object = dict[str, Any]
CHART = ROOT / "charts/stoker"
NAMESPACE = "stoker-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:stoker-operator"
TEAMS = ("team-a", "team-b")

EVERYTHING_SET: Object = {
    "image": {
        "registry": "registry.example.com/team",
        "digest": "sha256:" + "0" * 64,
        "pullSecrets": ["pull", "pull-2"],
    },
    "envoy": {"image": {"registry": "registry.example.com", "digest": "sha256:" + "1" * 64}},
    "crds": {"keep": False},
    "engine": {"allowPodTemplate": False},
    "replicas": 2,
    "logLevel": "debug",
    "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
    "serviceAccount": {"name": "own", "annotations": {"example.com/a": "b"}},
    "networkPolicy": {"enabled": True},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"example.com/c": "d"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "control", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "fullnameOverride": "llm",
}
VALUE_SETS: dict[str, Object] = {
    "defaults": {},
    "two-namespaces": {"watch": {"namespaces": list(TEAMS)}},
    "everything-set": EVERYTHING_SET,
    "least": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "given"},
        "metrics": {"service": False},
    },
}
every_value_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [str(BIN / "helm"), *arguments, *given],
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def render(values: Object, *arguments: str) -> list[Object]:
    done = helm("template", "stoker", str(CHART), "--namespace", NAMESPACE, *arguments, values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def operator_container(values: Object) -> Object:
    (deployment,) = of_kind(render(values), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment(container: Object) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@every_value_set
def test_helm_lint_has_nothing_to_say(values: Object) -> None:
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def namespaces(api_server: ApiServer) -> Iterator[None]:
    for name in (NAMESPACE, *TEAMS):
        api_server.kubectl("create", "namespace", name)
        api_server.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield
    api_server.kubectl("delete", "namespace", NAMESPACE, *TEAMS, "--wait=false")


@every_value_set
def test_the_api_server_takes_what_the_chart_renders(api_server: ApiServer, namespaces: None, values: Object) -> None:
    manifests = yaml.safe_dump_all(render(values))
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=manifests)


def test_the_api_server_takes_the_plain_manifests(api_server: ApiServer, namespaces: None) -> None:
    deploy = str(ROOT / "deploy")
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", deploy)


def test_plain_manifests_do_not_claim_to_be_a_helm_release() -> None:
    text = (ROOT / "deploy/stoker.yaml").read_text()
    assert "helm" not in text.lower().replace("charts/stoker", "")


@every_value_set
def test_the_operators_pod_passes_pod_security_restricted(
    api_server: ApiServer, namespaces: None, values: Object
) -> None:
    (deployment,) = of_kind(render(values), "Deployment")
    template = deployment["spec"]["template"]
    template["spec"].pop("serviceAccountName")  # not there, and a Pod, other than a Deployment, is refused for that
    template["spec"].pop("priorityClassName", None)
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "operator"}}
    api_server.kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(pod))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 2}, "replica"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"watch": {"namespaces": "team-a"}}, "namespaces"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
        ({"metrics": {"service": False, "serviceMonitor": {"enabled": True}}}, "needs metrics.service"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Object, complaint: str) -> None:
    done = helm("template", "stoker", str(CHART), values=values)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_the_charts_crds_are_those_of_the_crds_folder_and_kept_at_uninstall() -> None:
    rendered = {crd["metadata"]["name"]: crd for crd in of_kind(render({}), "CustomResourceDefinition")}
    assert len(rendered) == len(KINDS)
    for kind in KINDS:
        plain = yaml.safe_load((ROOT / f"crds/{kind.info.plural}.yaml").read_text())
        crd = rendered[plain["metadata"]["name"]]
        assert crd["spec"] == plain["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crds_can_be_left_out_or_not_kept() -> None:
    assert of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition") == []
    for crd in of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "annotations" not in crd["metadata"]


def test_watching_a_list_of_namespaces_takes_no_rights_elsewhere() -> None:
    objects = render({"watch": {"namespaces": list(TEAMS)}, "rbac": {"aggregate": False}})
    assert of_kind(objects, "ClusterRole") == of_kind(objects, "ClusterRoleBinding") == []
    places = sorted((role["metadata"]["namespace"], len(role["rules"]) > 1) for role in of_kind(objects, "Role"))
    assert places == [(NAMESPACE, False), *((team, True) for team in TEAMS)]
    bound = {binding["metadata"]["namespace"] for binding in of_kind(objects, "RoleBinding")}
    assert bound == {NAMESPACE, *TEAMS}
    assert (
        environment(operator_container({"watch": {"namespaces": list(TEAMS)}}))["STOKER_WATCH_NAMESPACES"]
        == "team-a,team-b"
    )


def test_a_budget_guards_more_than_one_replica_and_one_alone_is_never_in_the_way_of_a_drain() -> None:
    assert of_kind(render({}), "PodDisruptionBudget") == []
    (budget,) = of_kind(render({"replicas": 2}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_digest_wins_and_the_operator_hands_its_own_image_on() -> None:
    container = operator_container(EVERYTHING_SET)
    assert container["image"] == "registry.example.com/team/stoker@sha256:" + "0" * 64
    variables = environment(container)
    assert variables["STOKER_IMAGE"] == container["image"]
    assert variables["STOKER_ENVOY_IMAGE"] == "registry.example.com/envoyproxy/envoy@sha256:" + "1" * 64
    assert variables["STOKER_IMAGE_PULL_SECRETS"] == "pull,pull-2"
    assert variables["STOKER_ALLOW_POD_TEMPLATE"] == "false"


@every_value_set
def test_the_operator_knows_its_own_labels(values: Object) -> None:
    """Network policies of engines and gateways let in the pods that carry them."""
    (deployment,) = of_kind(render(values), "Deployment")
    told = environment(operator_container(values))["STOKER_OPERATOR_LABELS"]
    assert dict(pair.split("=") for pair in told.split(",")) == deployment["spec"]["selector"]["matchLabels"]


def test_a_service_monitor_finds_the_metrics_service() -> None:
    objects = render({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
    (monitor,), (service,) = of_kind(objects, "ServiceMonitor"), of_kind(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_an_image_of_ones_own_needs_the_kustomization_that_the_plain_manifests_describe(tmp_path: Path) -> None:
    described = "\n".join(line.removeprefix("# ") for line in OWN_REGISTRY.splitlines() if line.startswith("#   "))
    overlay = yaml.safe_load(described)
    overlay["resources"] = [os.path.relpath(ROOT / "deploy", tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        [str(BIN / "kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (deployment,) = of_kind(list(yaml.safe_load_all(done.stdout)), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    plain = environment(operator_container({}))
    image = plain["STOKER_IMAGE"].replace("ghcr.io/stoker-dev", "registry.example.com/team")
    assert container["image"] == image
    assert environment(container) == {**plain, "STOKER_IMAGE": image}


@pytest.fixture(scope="module")
def installed(api_server: ApiServer, namespaces: None) -> Iterator[str]:
    """The chart, installed with its defaults; yields what `helm install` said."""
    config = ["--kubeconfig", str(api_server.kubeconfig), "--namespace", NAMESPACE]
    done = helm("install", "stoker", str(CHART), *config, "--take-ownership", "--set", "serviceAccount.annotations.a=b")
    assert done.returncode == 0, done.stderr
    yield done.stdout
    helm("uninstall", "stoker", *config, "--ignore-not-found")


def test_the_notes_lead_to_a_first_answer_and_out_again(installed: str) -> None:
    for step in (
        "kind: InferenceEngine",
        "kind: ModelDeployment",
        "kind: ApiGateway",
        "gateway-admin",
        "kubectl delete crd",
    ):
        assert step in installed
    for kind in KINDS:
        assert f"{kind.info.plural}.stoker.dev" in installed


def test_the_objects_in_the_notes_are_accepted(api_server: ApiServer, installed: str) -> None:
    text = installed.split("<<END\n")[1].split("\n  END")[0]
    manifests = "\n".join(line.removeprefix("  ") for line in text.splitlines())
    api_server.kubectl("create", "--dry-run=server", "-n", TEAMS[0], "-f", "-", stdin=manifests)


def can(api_server: ApiServer, who: str, *what: str) -> bool:
    """Whether ``who`` (a user, or a user in no group) may do it in a team's namespace."""
    answer = api_server.kubectl("auth", "can-i", *what, "--as", who, "-n", TEAMS[0], check=False)
    return answer.stdout.strip() == "yes"


@pytest.mark.parametrize(
    "what",
    [
        ("watch", "modeldeployments.stoker.dev"),
        ("patch", "modeldeployments.stoker.dev", "--subresource=status"),
        ("create", "apikeys.stoker.dev"),
        ("patch", "deployments.apps"),
        ("get", "secrets"),
        ("update", "secrets"),
        ("patch", "pods"),
        ("list", "nodes"),
        ("watch", "resourceslices.resource.k8s.io"),
        ("create", "events.events.k8s.io"),
    ],
    ids=" ".join,
)
def test_the_operator_may_do_its_work(api_server: ApiServer, installed: str, what: tuple[str, ...]) -> None:
    assert can(api_server, OPERATOR, *what)


@pytest.mark.parametrize(
    "what",
    [
        ("create", "modeldeployments.stoker.dev"),
        ("patch", "inferenceengines.stoker.dev"),
        ("create", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("deletecollection", "secrets"),
        ("patch", "nodes"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("escalate", "roles.rbac.authorization.k8s.io"),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
        ("get", "leases.coordination.k8s.io"),
    ],
    ids=" ".join,
)
def test_the_operator_may_not_do_more(api_server: ApiServer, installed: str, what: tuple[str, ...]) -> None:
    assert not can(api_server, OPERATOR, *what)


def role(name: str, **rule: list[str]) -> str:
    rules = [{"apiGroups": [""], **rule}]
    metadata = {"name": name, "namespace": TEAMS[0]}
    return yaml.safe_dump(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    )


def test_the_operator_can_grant_a_gateway_its_own_secrets_and_nothing_it_does_not_hold(
    api_server: ApiServer, installed: str
) -> None:
    apply = ("apply", "--server-side", "--as", OPERATOR, "-f", "-")
    own = role("gw", resources=["secrets"], verbs=["get", "list", "watch"], resourceNames=["gw-routes", "gw-keys-0"])
    api_server.kubectl(*apply, stdin=own)
    refused = api_server.kubectl(
        *apply, stdin=role("more", resources=["secrets"], verbs=["deletecollection"]), check=False
    )
    assert "not currently held" in refused.stderr


def test_the_built_in_roles_of_a_namespace_know_our_kinds(api_server: ApiServer, installed: str) -> None:
    for name in ("view", "edit"):
        api_server.kubectl("create", "rolebinding", name, f"--clusterrole={name}", f"--user={name}er", "-n", TEAMS[0])
    deadline = time.monotonic() + 90  # a controller joins the roles
    while not can(api_server, "editer", "create", "modeldeployments.stoker.dev"):
        assert time.monotonic() < deadline
    assert can(api_server, "editer", "patch", "modeldeployments.stoker.dev", "--subresource=scale")
    assert can(api_server, "viewer", "list", "apikeys.stoker.dev")
    assert not can(api_server, "viewer", "create", "modeldeployments.stoker.dev")
    assert not can(api_server, "editer", "patch", "modeldeployments.stoker.dev", "--subresource=status")


def test_uninstalling_keeps_the_objects_of_the_users(api_server: ApiServer, installed: str) -> None:
    gateway = {"apiVersion": "stoker.dev/v1alpha1", "kind": "ApiGateway", "metadata": {"name": "kept"}}
    api_server.create("apigateways", gateway, dry_run=False).raise_for_status()
    done = helm("uninstall", "stoker", "--kubeconfig", str(api_server.kubeconfig), "--namespace", NAMESPACE)
    assert done.returncode == 0, done.stderr
    assert "[CustomResourceDefinition] apigateways.stoker.dev" in done.stdout
    api_server.delete("apigateways", "kept")
