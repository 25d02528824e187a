from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from stoker.api.api_key import KeyHash
from stoker.desired.api_key import (
    add_key_hash,
    build_key,
    build_secret,
    hash_key,
    is_active,
    key_prefix,
    live_key_hashes,
    next_change,
    secret_name,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEY = build_key(bytes(range(32)))


def entry(letter: str, expires_in: int | None = None) -> KeyHash:
    expires = None if expires_in is None else NOW + timedelta(seconds=expires_in)
    return KeyHash(sha256=letter * 64, created_at=NOW - timedelta(days=1), expires_at=expires)


def test_a_key_holds_all_random_bits_and_is_safe_in_a_header() -> None:
    assert KEY.startswith("sk-stoker-")
    assert base64.urlsafe_b64decode(KEY.removeprefix("sk-stoker-") + "=") == bytes(range(32))
    with pytest.raises(ValueError, match="32 random bytes"):
        build_key(b"short")


def test_the_hash_is_what_sha256sum_prints() -> None:
    assert hash_key(KEY) == hashlib.sha256(KEY.encode()).hexdigest()


def test_the_prefix_shows_four_characters_of_the_key() -> None:
    assert key_prefix(KEY) == KEY[:14] + "…"


def test_the_secret_holds_the_key_and_belongs_to_the_api_key(make_key) -> None:
    secret = build_secret(make_key(secretName="chosen"), KEY)
    assert secret["metadata"]["name"] == "chosen"
    assert base64.b64decode(secret["data"]["apiKey"]).decode() == KEY
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "ApiKey"
    assert secret_name(make_key()) == "alice"


def test_a_new_hash_leaves_the_old_one_its_grace_period() -> None:
    new, old = add_key_hash([entry("a")], "b" * 64, NOW)
    assert (new.sha256, new.created_at, new.expires_at) == ("b" * 64, NOW, None)
    assert (old.sha256, old.expires_at) == ("a" * 64, NOW + timedelta(seconds=600))


def test_rotating_again_prolongs_no_grace_and_drops_what_has_ended() -> None:
    kept = add_key_hash([entry("a"), entry("b", 30), entry("c", -1)], "d" * 64, NOW, grace_seconds=60)
    assert [(e.sha256[0], e.expires_at and (e.expires_at - NOW).seconds) for e in kept] == [
        ("d", None),
        ("a", 60),
        ("b", 30),
    ]


def test_at_most_four_hashes_are_kept_the_newest_first() -> None:
    kept = add_key_hash([entry(letter, 60) for letter in "abcde"], "f" * 64, NOW)
    assert [e.sha256[0] for e in kept] == ["f", "a", "b", "c"]


def test_adding_a_known_hash_does_not_double_it() -> None:
    assert len(add_key_hash([entry("a")], "a" * 64, NOW)) == 1


def test_hashes_live_until_the_moment_they_expire() -> None:
    assert [e.sha256[0] for e in live_key_hashes([entry("a"), entry("b", 1), entry("c", 0)], NOW)] == ["a", "b"]


def test_a_key_is_active_until_it_is_suspended_or_expires(make_key) -> None:
    assert is_active(make_key(), NOW)
    assert not is_active(make_key(suspend=True), NOW)
    assert is_active(make_key(expiresAt="2026-06-01T00:00:01Z"), NOW)
    assert not is_active(make_key(expiresAt="2026-06-01T00:00:00Z"), NOW)


def test_the_next_change_by_time_is_the_earliest_end_to_come(make_key) -> None:
    hashes = {"keys": [entry("a").model_dump(by_alias=True), entry("b", 60).model_dump(by_alias=True)]}
    assert next_change(make_key(), NOW) is None
    assert next_change(make_key(expiresAt="2026-07-01T00:00:00Z", status=hashes), NOW) == NOW + timedelta(seconds=60)
    assert next_change(make_key(expiresAt="2026-01-01T00:00:00Z"), NOW) is None
