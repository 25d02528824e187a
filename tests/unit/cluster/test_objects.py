"""Reading plain objects."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.cluster.objects import secret_bytes, secret_text


def test_a_field_of_a_secret_is_read_to_the_byte() -> None:
    secret = {"data": {"secret": "w6QK"}}
    assert secret_bytes(secret, "secret") == "ä\n".encode()
    assert secret_text(secret, "secret") == "ä\n"


@pytest.mark.parametrize(
    "secret",
    [
        None,
        {},
        {"data": None},
        {"data": {}},
        {"data": {"other": "eA=="}},
        {"data": {"secret": None}},
        {"data": {"secret": "not base64!"}},
    ],
)
def test_a_field_that_is_not_there_is_none_and_no_text(secret: Any) -> None:
    assert secret_bytes(secret, "secret") is None
    assert secret_text(secret, "secret") == ""


def test_bytes_that_are_no_text_are_no_text() -> None:
    secret = {"data": {"secret": "/w=="}}
    assert secret_bytes(secret, "secret") == b"\xff"
    assert secret_text(secret, "secret") == ""
