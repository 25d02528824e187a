"""CRDs as chart templates; rendering itself is tested with helm in tests/integration/test_chart.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.codegen import chart

CRD = """\
# Written.
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: apikeys.stoker.dev
spec:
  names:
    kind: ApiKey
  note: as in {{ .Release.Name }} of a template
"""


def test_a_crd_is_switched_by_enabled_and_kept_by_keep() -> None:
    lines = chart.wrap_crd(CRD).splitlines()
    assert lines[0] == "{{- if .Values.crds.enabled }}"
    assert lines[-1] == "{{- end }}"
    name = lines.index("  name: apikeys.stoker.dev")
    assert "{{- if .Values.crds.keep }}" in lines[name + 3]
    assert lines[name + 5] == "    helm.sh/resource-policy: keep"


def test_braces_in_a_description_do_not_become_a_template() -> None:
    assert 'as in {{ "{{" }} .Release.Name }} of a template' in chart.wrap_crd(CRD)


def test_a_missing_helm_names_the_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(chart.HelmError, match="make tools"):
        chart.find_helm(tmp_path)


def test_helm_of_the_checkout_comes_before_that_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / ".stoker/bin/helm"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.delenv("HELM", raising=False)
    assert chart.find_helm(tmp_path) == str(own)
    monkeypatch.setenv("HELM", "/opt/helm")
    assert chart.find_helm(tmp_path) == "/opt/helm"
