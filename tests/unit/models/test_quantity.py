from __future__ import annotations

from decimal import Decimal

import pytest

from stoker.models.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"), ("1.5", "1.5"), (".5", "0.5"), ("500m", "0.5"), ("32Mi", "33554432"), ("1k", "1000"), ("2G", "2000000000"),
        ("1e3", "1000"), ("1E3", "1000"), ("12e-1", "1.2"), ("3E", "3000000000000000000"), ("250u", "0.00025"), ("7n", "7e-9"),
        ("1Ei", "1152921504606846976"),
    ],
)  # fmt: skip
def test_a_quantity_is_the_number_kubernetes_takes_it_for(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


def test_a_number_is_a_quantity() -> None:
    assert parse_quantity(2) == 2
    assert parse_quantity(0.5) == Decimal("0.5")


@pytest.mark.parametrize("text", ["", "m", "1 Mi", "1mi", "1e", "1e3m", "1x", "--1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
