"""The chart's copies of generated things, and the plain manifests rendered from the chart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

CHART = "charts/stoker"
NAMESPACE = "stoker-system"
RELEASE = "stoker"


class HelmError(Exception):
    """Helm is missing or refused the chart; the text says which and what to run."""


def wrap_crd(text: str) -> str:
    """A CRD as a chart template: switched by crds.enabled, kept at uninstall by crds.keep.

    It stands among the templates because Helm never upgrades what lies in a chart's own crds/ folder.
    """
    escaped = text.replace("{{", '{{ "{{" }}')
    head, name, rest = re.split(r"^(  name: \S+\n)", escaped, maxsplit=1, flags=re.MULTILINE)
    return (
        "{{- if .Values.crds.enabled }}\n"
        f"{head}{name}"
        '  labels:\n    {{- include "stoker.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
        f"{rest}"
        "{{- end }}\n"
    )


def find_helm(root: Path) -> str:
    """Helm from $HELM, from the tools of this checkout, or from PATH."""
    own = root / ".stoker/bin/helm"
    found = os.environ.get("HELM") or (str(own) if own.exists() else shutil.which("helm"))
    if not found:
        raise HelmError("helm is needed to render deploy/: run `make tools`, or set HELM to its path")
    return found


def render_deploy(root: Path, generated: Mapping[str, str]) -> str:
    """The chart with its default values, without the CRDs, as plain manifests.

    Rendered from a copy that holds the generated files as they should be, so that a check tells the truth even where
    the chart on disk is stale.
    """
    with tempfile.TemporaryDirectory(prefix="stoker-chart-") as directory:
        chart = Path(directory) / "stoker"
        shutil.copytree(root / CHART, chart)
        for path, text in generated.items():
            if path.startswith(f"{CHART}/"):
                target = chart / path.removeprefix(f"{CHART}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        command = [
            find_helm(root),
            "template",
            RELEASE,
            str(chart),
            "--namespace",
            NAMESPACE,
            "--set",
            "crds.enabled=false",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        raise HelmError(f"helm could not render {CHART}:\n{done.stderr.strip()}")
    return _without_helm(done.stdout)


def _without_helm(text: str) -> str:
    """Drop what is only true of a Helm release."""
    return re.sub(
        r"^(# Source: .*|\s+(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*)\n", "", text, flags=re.MULTILINE
    )
