from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.desired.inference_engine import build_children, check_engine
from stoker.errors import Stalled


@pytest.mark.parametrize("cache", [{}, {"type": "EmptyDir"}, {"type": "HostPath", "path": "/srv"}])
def test_an_engine_without_a_claim_has_no_children(make_engine, settings, cache) -> None:
    assert build_children(make_engine(cache=cache), settings) == []


def test_the_cache_claim_belongs_to_the_engine(make_engine, settings) -> None:
    (claim,) = build_children(make_engine(cache={"type": "PersistentVolumeClaim", "size": "5Gi"}), settings)
    assert (claim["kind"], claim["metadata"]["name"]) == ("PersistentVolumeClaim", "llama-cache")
    assert claim["metadata"]["ownerReferences"][0]["kind"] == "InferenceEngine"
    # No storageClassName: an empty one would mean "no class", not the default.
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}


def test_class_and_access_modes_of_the_claim_are_those_asked_for(make_engine, settings) -> None:
    cache = {"type": "PersistentVolumeClaim", "size": "5Gi", "storageClassName": "", "accessModes": ["ReadWriteMany"]}
    (claim,) = build_children(make_engine(cache=cache), settings)
    assert claim["spec"]["storageClassName"] == ""
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_pod_template_is_refused_where_the_admin_forbids_it(make_engine, settings) -> None:
    engine = make_engine(podTemplate={})
    check_engine(engine, settings)
    with pytest.raises(Stalled) as caught:
        check_engine(engine, replace(settings, allow_pod_template=False))
    assert caught.value.reason == "PodTemplateForbidden"
