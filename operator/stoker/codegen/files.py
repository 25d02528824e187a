"""Which files are generated, and their text."""

from __future__ import annotations

import json
from pathlib import Path

from stoker.api import KINDS
from stoker.codegen import chart, engines, rbac, reference, values
from stoker.codegen.crd import build_crd
from stoker.codegen.yaml_text import yaml_text
from stoker.gateway.openapi import build_document

GENERATED_FOLDERS = ("crds", f"{chart.CHART}/templates/crds", "deploy", "docs/reference")
"""Nothing else lies here; a file that is no longer generated is stale."""

OWN_REGISTRY = """\
# With an image in a registry of yours, this is your kustomization; gateways, agents and downloads run the same image:
#
#   resources: [path/to/deploy]
#   images:
#     - name: ghcr.io/stoker-dev/stoker
#       newName: registry.example.com/team/stoker
#   replacements:
#     - source: {kind: Deployment, name: stoker-operator, fieldPath: "spec.template.spec.containers.[name=operator].image"}
#       targets:
#         - select: {kind: Deployment, name: stoker-operator}
#           fieldPaths: ["spec.template.spec.containers.[name=operator].env.[name=^STOKER_IMAGE$].value"]
"""


def generate(root: Path) -> dict[str, str]:
    """Every generated file by its path below ``root``."""
    files: dict[str, str] = {}
    for kind in KINDS:
        name = kind.info.plural
        text = yaml_text(
            build_crd(kind), source=f"operator/stoker/api/{reference.page_name(kind).replace('-', '_')}.py"
        )
        files[f"crds/{name}.yaml"] = text
        files[f"{chart.CHART}/templates/crds/{name}.yaml"] = chart.wrap_crd(text)
        files[f"docs/reference/{reference.page_name(kind)}.md"] = reference.build_page(kind)
    files["crds/kustomization.yaml"] = _kustomization([f"{kind.info.plural}.yaml" for kind in KINDS])
    files[f"{chart.CHART}/templates/_rules.tpl"] = rbac.build_partials()
    files["docs/reference/README.md"] = reference.build_index()
    files["docs/reference/chart-values.md"] = values.build_page((root / chart.CHART / "values.yaml").read_text())
    files["docs/reference/openapi.json"] = json.dumps(build_document(), indent=1) + "\n"
    files["docs/engines.md"] = engines.build_page()
    files["deploy/namespace.yaml"] = yaml_text(_namespace(), source="operator/stoker/codegen/files.py")
    files["deploy/stoker.yaml"] = _deploy_header() + chart.render_deploy(root, files)
    files["deploy/kustomization.yaml"] = _kustomization(["../crds", "namespace.yaml", "stoker.yaml"]) + OWN_REGISTRY
    return files


def stale_files(root: Path, files: dict[str, str]) -> list[str]:
    """What differs on disk: missing, different, or no longer generated."""
    differing = [path for path, text in files.items() if _read(root / path) != text]
    left_over = [
        path.relative_to(root).as_posix()
        for folder in GENERATED_FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.relative_to(root).as_posix() not in files
    ]
    return sorted([*differing, *left_over])


def write(root: Path, files: dict[str, str]) -> list[str]:
    """Bring the disk in line; returns what changed."""
    changed = stale_files(root, files)
    for path in changed:
        target = root / path
        if path in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(files[path])
        else:
            target.unlink()
    return changed


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _kustomization(resources: list[str]) -> str:
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    return yaml_text(document, source="operator/stoker/codegen/files.py")


def _namespace() -> dict[str, object]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE, "labels": labels}}


def _deploy_header() -> str:
    return "# Written by `make generate` from charts/stoker with its default values; do not edit.\n"
