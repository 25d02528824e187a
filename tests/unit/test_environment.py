from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.environment import Environment, NotConfigured


def test_an_empty_variable_counts_as_not_given() -> None:
    empty = Environment({"A": ""})
    assert empty.text("A", "default") == "default"
    assert empty.number("A", 3) == 3
    assert empty.flag("A", default=True)
    assert empty.folder("A", Path("/run")) == Path("/run")
    assert empty.items("A") == ()
    with pytest.raises(NotConfigured, match="A is not set"):
        empty.required("A")


def test_what_is_given_is_taken() -> None:
    given = Environment(
        {"TEXT": "x", "NUMBER": "7", "FLAG": "False", "FOLDER": "/y", "ITEMS": "a, b,", "PAIRS": "a=b,c=d=e"}
    )
    assert given.required("TEXT") == given.text("TEXT", "default") == "x"
    assert given.number("NUMBER", 3) == 7
    assert not given.flag("FLAG", default=True)
    assert given.folder("FOLDER", Path("/run")) == Path("/y")
    assert given.items("ITEMS") == ("a", "b")
    assert given.pairs("PAIRS") == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda given: given.number("A", 1), "many"),
        (lambda given: given.number("A", 1), "-1"),
        (lambda given: given.number("A", 1), "²"),
        (lambda given: given.flag("A", default=True), "perhaps"),
        (lambda given: given.pairs("A"), "app"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name_and_value(
    read: Callable[[Environment], object], value: str
) -> None:
    with pytest.raises(NotConfigured, match=f"^A must .*, not '{value}'$"):
        read(Environment({"A": value}))
