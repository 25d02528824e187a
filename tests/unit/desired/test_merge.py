from __future__ import annotations

import copy

import pytest

from stoker.desired.merge import merge, merge_pod_template
from stoker.errors import Stalled

TEMPLATE = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "engine",
                "args": ["--x"],
                "env": [{"name": "HOME", "value": "/tmp"}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "ports": [{"containerPort": 8080, "name": "http"}],
            }
        ],
        "tolerations": [{"key": "a"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    },
}


def test_lists_are_merged_by_the_key_that_their_items_are_known_by() -> None:
    merged = merge(
        TEMPLATE,
        {
            "spec": {
                "containers": [
                    {
                        "name": "engine",
                        "env": [{"name": "HOME", "value": "/home"}, {"name": "A", "value": "1"}],
                        "volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var"}],
                        "ports": [{"containerPort": 8080, "hostPort": 80}],
                    },
                    {"name": "extra", "image": "x"},
                ],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}],
            }
        },
    )
    engine, extra = merged["spec"]["containers"]
    assert extra == {"name": "extra", "image": "x"}
    assert engine["env"] == [{"name": "HOME", "value": "/home"}, {"name": "A", "value": "1"}]
    assert engine["volumeMounts"] == [{"name": "big", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var"}]
    assert engine["ports"] == [{"containerPort": 8080, "name": "http", "hostPort": 80}]
    assert engine["args"] == ["--x"]
    assert merged["spec"]["hostAliases"] == [{"ip": "10.0.0.1", "hostnames": ["b"]}]


def test_lists_without_such_a_key_are_replaced() -> None:
    merged = merge(
        TEMPLATE, {"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "engine", "args": ["--y"]}]}}
    )
    assert merged["spec"]["tolerations"] == [{"key": "b"}]
    assert merged["spec"]["containers"][0]["args"] == ["--y"]


def test_null_removes_a_field() -> None:
    assert merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": None}, "e": None}) == {"b": {"d": 3}}


def test_a_mapping_over_something_else_replaces_it() -> None:
    assert merge({"a": 1, "b": {"c": 2}}, {"a": {"x": 1}, "b": 2}) == {"a": {"x": 1}, "b": 2}


def test_nothing_that_was_given_is_changed() -> None:
    before = copy.deepcopy(TEMPLATE)
    merge(TEMPLATE, {"metadata": {"labels": {"b": "2"}}, "spec": {"containers": [{"name": "engine", "image": "x"}]}})
    assert before == TEMPLATE


def test_merging_the_same_twice_changes_nothing_more() -> None:
    patch = {"spec": {"containers": [{"name": "engine", "env": [{"name": "A", "value": "1"}]}], "nodeName": "n"}}
    once = merge(TEMPLATE, patch)
    assert merge(once, patch) == once


@pytest.mark.parametrize("patch", [{"replicas": 2}, {"spec": []}, {"metadata": "x"}])
def test_what_is_no_part_of_a_pod_template_is_refused(patch: dict[str, object]) -> None:
    with pytest.raises(Stalled) as caught:
        merge_pod_template(TEMPLATE, patch, "InferenceEngine e")
    assert caught.value.reason == "InvalidPodTemplate"
    assert "InferenceEngine e" in caught.value.message


@pytest.mark.parametrize("field", ["containers", "volumes", "initContainers"])
@pytest.mark.parametrize("value", [[{"image": "x"}], ["x"], "x"])
def test_items_without_a_name_are_refused(field: str, value: object) -> None:
    with pytest.raises(Stalled, match="needs a name"):
        merge_pod_template(TEMPLATE, {"spec": {field: value}}, "InferenceEngine e")
