from __future__ import annotations

import pytest

from stoker.api.base import LabelSelector, NamespaceSelection
from stoker.desired.label_selectors import check_selector, matches, selects_namespace
from stoker.errors import Stalled

LABELS = {"tier": "gold", "team": "a"}


def selector(*expressions: dict[str, object], **labels: str) -> LabelSelector:
    return LabelSelector(match_labels=labels or None, match_expressions=list(expressions) or None)


def test_no_selector_and_an_empty_one_take_all() -> None:
    assert matches(None, {})
    assert matches(selector(), LABELS)


def test_all_labels_must_be_there() -> None:
    assert matches(selector(tier="gold", team="a"), LABELS)
    assert not matches(selector(tier="gold", team="b"), LABELS)
    assert not matches(selector(other="x"), LABELS)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "tier", "operator": "In", "values": ["gold", "silver"]}, True),
        ({"key": "tier", "operator": "In", "values": ["silver"]}, False),
        ({"key": "none", "operator": "In", "values": ["gold"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["silver"]}, True),
        ({"key": "none", "operator": "NotIn", "values": ["gold"]}, True),
        ({"key": "tier", "operator": "Exists"}, True),
        ({"key": "none", "operator": "Exists"}, False),
        ({"key": "tier", "operator": "DoesNotExist"}, False),
        ({"key": "none", "operator": "DoesNotExist"}, True),
    ],
)
def test_expressions_are_evaluated_as_kubernetes_does(expression: dict[str, object], expected: bool) -> None:
    check_selector(selector(expression), "x")
    assert matches(selector(expression), LABELS) is expected


@pytest.mark.parametrize(
    "expression",
    [
        {"operator": "Exists"},
        {"key": "a", "operator": "Like"},
        {"key": "a"},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "NotIn", "values": []},
        {"key": "a", "operator": "Exists", "values": ["b"]},
    ],
)
def test_malformed_expressions_are_refused_and_match_nothing_by_accident(expression: dict[str, object]) -> None:
    with pytest.raises(Stalled) as caught:
        check_selector(selector(expression), "ApiGateway g: spec.models.selector")
    assert caught.value.reason == "InvalidSelector"
    assert caught.value.message.startswith("ApiGateway g: spec.models.selector.matchExpressions")


def selection(kind: str, **labels: str) -> NamespaceSelection:
    return NamespaceSelection.model_validate(
        {"from": kind, **({"selector": {"matchLabels": labels}} if labels else {})}
    )


def test_namespaces_are_selected_by_name_all_or_labels() -> None:
    namespaces = {"a": {"team": "x"}, "b": {"team": "y"}}
    assert selects_namespace(selection("Same"), "a", "a", namespaces)
    assert not selects_namespace(selection("Same"), "a", "b", namespaces)
    assert selects_namespace(selection("All"), "a", "b", namespaces)
    assert selects_namespace(selection("Selector", team="y"), "a", "b", namespaces)
    assert not selects_namespace(selection("Selector", team="y"), "a", "a", namespaces)
    assert not selects_namespace(selection("Selector", team="y"), "a", "unknown", namespaces)


def test_without_the_right_to_read_namespaces_only_the_own_one_counts() -> None:
    assert selects_namespace(selection("All"), "a", "a", None)
    assert not selects_namespace(selection("All"), "a", "b", None)
    assert not selects_namespace(selection("Selector", team="y"), "a", "a", None)
