"""Label selectors, evaluated as Kubernetes does."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.api.base import LabelSelector, NamespaceSelection
from stoker.errors import Stalled


def check_selector(selector: LabelSelector | None, where: str) -> None:
    """Refuse expressions that Kubernetes would refuse; the CRD stores them unchecked."""
    for expression in (selector.match_expressions if selector else None) or []:
        operator, values = expression.get("operator"), expression.get("values")
        if not isinstance(expression.get("key"), str) or operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            problem = "each needs a key and an operator: In, NotIn, Exists or DoesNotExist"
        elif operator in ("In", "NotIn") and (not isinstance(values, list) or not values):
            problem = f"operator {operator} needs values"
        elif operator in ("Exists", "DoesNotExist") and values:
            problem = f"operator {operator} takes no values"
        else:
            continue
        raise Stalled("InvalidSelector", f"{where}.matchExpressions: {problem}")


def matches(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector; no selector takes all."""
    if selector is None:
        return True
    if any(labels.get(key) != value for key, value in (selector.match_labels or {}).items()):
        return False
    return all(_satisfies(expression, labels) for expression in selector.match_expressions or [])


def _satisfies(expression: Mapping[str, object], labels: Mapping[str, str]) -> bool:
    key, operator, values = str(expression.get("key")), expression.get("operator"), expression.get("values")
    among = isinstance(values, list) and labels.get(key) in values
    if operator == "In":
        return key in labels and among
    if operator == "NotIn":
        # A missing label is not in the list either.
        return key not in labels or not among
    if operator == "Exists":
        return key in labels
    return operator == "DoesNotExist" and key not in labels


def selects_namespace(
    selection: NamespaceSelection, own: str, other: str, namespace_labels: Mapping[str, Mapping[str, str]] | None
) -> bool:
    """Whether ``own``'s selection lets ``other`` in; without the right to read namespaces only the own one counts."""
    if own == other and selection.from_ != "Selector":
        return True
    if selection.from_ == "Same" or namespace_labels is None:
        return False
    return selection.from_ == "All" or matches(selection.selector, namespace_labels.get(other, {}))
