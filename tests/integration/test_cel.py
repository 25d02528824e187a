"""The rules of the CRDs on a real API server: each accepts what it should and refuses what it should, in its own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from integration.api_server import GROUP_VERSION, ROOT, ApiServer

from stoker.api import KIND_BY_NAME, KINDS

pytestmark = pytest.mark.integration

Object = dict[str, Any]
DATA = Path(__file__).parent / "cel"


@dataclass(frozen=True)
class Case:
    """One object that one rule accepts or rejects."""

    kind: str
    message: str
    body: Object
    stored: Object | None = field(default=None)
    """What is there before, for rules about changes."""

    @property
    def plural(self) -> str:
        return KIND_BY_NAME[self.kind].info.plural


def documents() -> Iterator[Object]:
    for path in sorted(DATA.glob("*.yaml")):
        yield yaml.safe_load(path.read_text())


def overlay(base: Object, kind: str, entry: Object) -> Object:
    """``base`` with the fields of ``entry`` in metadata and spec."""
    parts = {part: {**base[part], **entry.get(part, {})} for part in ("metadata", "spec")}
    return {"apiVersion": GROUP_VERSION, "kind": kind, **parts}


def cases(outcome: str) -> list[Any]:
    found = []
    for document in documents():
        kind, base = document["kind"], document["base"]
        for pair in document["pairs"]:
            stored = overlay(base, kind, pair["stored"]) if "stored" in pair else None
            for number, entry in enumerate(pair[outcome], 1):
                case = Case(kind, pair["message"], overlay(base, kind, entry), stored)
                found.append(pytest.param(case, id=f"{kind}: {pair['message'][:60]} ({number})"))
    return found


def ask(server: ApiServer, case: Case) -> httpx.Response:
    if case.stored is None:
        return server.create(case.plural, case.body)
    server.create(case.plural, case.stored, dry_run=False).raise_for_status()
    try:
        return server.replace(case.plural, case.body)
    finally:
        server.delete(case.plural, case.stored["metadata"]["name"])


@pytest.mark.parametrize("case", cases("accepted"))
def test_the_rule_accepts(api_server: ApiServer, case: Case) -> None:
    answer = ask(api_server, case)
    assert answer.is_success, answer.json()["message"]


@pytest.mark.parametrize("case", cases("rejected"))
def test_the_rule_rejects_in_its_own_words(api_server: ApiServer, case: Case) -> None:
    answer = ask(api_server, case)
    assert answer.status_code == 422
    causes = [cause["message"] for cause in answer.json()["details"]["causes"]]
    assert len(causes) == 1, f"another rule speaks, too: {causes}"
    assert case.message in causes[0]


def test_every_rule_has_an_accepted_and_a_rejected_object() -> None:
    written = {
        (document["spec"]["names"]["kind"], at, message)
        for document in crds()
        for at, message in rules(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "")
    }
    covered = {
        (document["kind"], pair["at"], pair["message"])
        for document in documents()
        for pair in document["pairs"]
        if pair["accepted"] and pair["rejected"]
    }
    assert covered == written


def crds() -> list[Object]:
    return [yaml.safe_load((ROOT / f"crds/{kind.info.plural}.yaml").read_text()) for kind in KINDS]


def rules(schema: Object, at: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield at, rule["message"]
    for name, below in schema.get("properties", {}).items():
        yield from rules(below, f"{at}.{name}".lstrip("."))
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from rules(schema[key], f"{at}[]")


@pytest.mark.parametrize("document", list(documents()), ids=lambda document: document["kind"])
def test_the_api_server_fills_in_the_defaults_that_the_models_promise(api_server: ApiServer, document: Object) -> None:
    """Whoever reads the object sees the same, whether Stoker or the API server filled it in."""
    kind = KIND_BY_NAME[document["kind"]]
    body = overlay(document["base"], document["kind"], {})
    stored = api_server.create(kind.info.plural, body).raise_for_status().json()
    ours = kind.model_validate(body).model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]
    assert stored["spec"] == {name: value for name, value in ours.items() if value != []}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_example_is_accepted(api_server: ApiServer, path: Path) -> None:
    for body in yaml.safe_load_all(path.read_text()):
        answer = api_server.create(KIND_BY_NAME[body["kind"]].info.plural, body)
        assert answer.is_success, answer.json()["message"]


def test_an_unknown_field_is_refused_by_name(api_server: ApiServer) -> None:
    answer = api_server.create(
        "apigateways", overlay({"metadata": {"name": "g"}, "spec": {}}, "ApiGateway", {"spec": {"replica": 1}})
    )
    assert answer.status_code == 400
    assert 'unknown field "spec.replica"' in answer.json()["message"]


def test_explain_reads_the_docstrings(api_server: ApiServer) -> None:
    said = " ".join(api_server.kubectl("explain", "smd.spec.source.uri").stdout.split())
    assert "pvc://CLAIM/PATH or file:///PATH on the node" in said


def test_a_stored_object_can_be_listed_by_category_scaled_and_reported_on(api_server: ApiServer) -> None:
    body = overlay(
        {
            "metadata": {"name": "m"},
            "spec": {"engineRef": {"name": "e"}, "source": {"uri": "https://example.com/m.gguf"}},
        },
        "ModelDeployment",
        {},
    )
    api_server.create("modeldeployments", body, dry_run=False).raise_for_status()
    try:
        api_server.kubectl("scale", "smd/m", "--replicas=3", "-n", "manifests")
        ready = {
            "type": "Ready",
            "status": "False",
            "reason": "EngineNotFound",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "message": "no engine",
        }
        status = yaml.safe_dump({"status": {"engine": "e", "readyReplicas": 0, "conditions": [ready]}})
        api_server.kubectl("patch", "smd/m", "-n", "manifests", "--subresource=status", "--type=merge", "-p", status)
        head, row = api_server.kubectl("get", "stoker", "-n", "manifests").stdout.splitlines()
        assert head.split() == ["NAME", "ENGINE", "READY", "REASON", "REPLICAS", "AGE"]
        assert row.split()[1:5] == ["e", "False", "EngineNotFound", "0"]
        replicas = api_server.kubectl("get", "smd/m", "-n", "manifests", "-o", "jsonpath={.spec.replicas}").stdout
        assert replicas == "3"
    finally:
        api_server.delete("modeldeployments", "m")
