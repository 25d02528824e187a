"""Kubernetes quantities as exact numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?P<suffix>[a-zA-Z]*)(?P<exponent>[+-]?[0-9]*)"
)
_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_quantity(value: str | float) -> Decimal:
    """The number a quantity stands for: ``500m`` is 0.5, ``32Mi`` is 33554432; ValueError for anything else."""
    text = str(value).strip()
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"{value!r} is not a quantity")
    suffix, exponent = match["suffix"], match["exponent"]
    if suffix in ("e", "E") and exponent:
        return Decimal(match["number"]).scaleb(int(exponent))
    if exponent or suffix not in _FACTORS:
        raise ValueError(f"{value!r} is not a quantity")
    return Decimal(match["number"]) * _FACTORS[suffix]
