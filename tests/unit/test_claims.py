"""By what people are known, and what an issuer says of their addresses."""

from __future__ import annotations

import pytest

from stoker.claims import is_unverified, known_as


@pytest.mark.parametrize("spelled", ["carol@example.com", "Carol@example.com", "CAROL@EXAMPLE.COM"])
def test_an_address_is_one_person_however_it_is_written(spelled: str) -> None:
    assert known_as(spelled) == "carol@example.com"


@pytest.mark.parametrize("name", ["Carol", "AbC-123", "auth0|4F", ""])
def test_names_that_are_no_addresses_stay_as_they_are(name: str) -> None:
    assert known_as(name) == name


@pytest.mark.parametrize("other", ["\u212aarl@example.com", "d\u0130ana@example.com"])
def test_a_letter_that_only_becomes_ascii_when_it_is_made_small_is_somebody_else(other: str) -> None:
    assert other.lower() != known_as(other)
    assert known_as(other) not in ("karl@example.com", "diana@example.com")


def test_an_issuer_that_says_nothing_vouches_for_its_addresses() -> None:
    assert not is_unverified({})
    assert not is_unverified({"email_verified": True})
    assert not is_unverified({"email_verified": "true"})
    for said in (False, "false", "True", 1, 0, None, []):
        assert is_unverified({"email_verified": said})
