from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.config import ConfigRejected, parse_endpoints, parse_keys, parse_routes
from stoker.gateway.table import build_table
from stoker.patterns import compile_patterns


def test_a_model_is_found_by_name_and_alias() -> None:
    table = build_table(parse_routes(routes(model("qwen", aliases=["gpt-4o"]))), ())
    assert table.by_name["gpt-4o"] is table.by_name["qwen"]
    assert table.by_name["qwen"].cluster == "team-a/qwen"


def test_a_served_name_wins_over_an_alias_and_the_earlier_entry_over_the_later() -> None:
    text = routes(model("a", aliases=["b"]), model("b"), model("b", deployment="later"))
    table = build_table(parse_routes(text), ())
    assert table.by_name["b"].deployment == "b"


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "x"},
        model("bad\r\nname"),
        model("x", namespace="../../etc"),
        model("x", deployment="a/b"),
        model("x", service="A_B"),
        model("x", aliases=5),
        model("x", engineKey="short"),
        model("x", engineKey="a-key-that-breaks\r\nx-header: 1"),
        model("x", engineKey=5),
        "a string",
        None,
    ],
)
def test_an_entry_that_makes_no_sense_is_left_out_and_the_others_stay(bad: object) -> None:
    parsed = parse_routes(routes(bad, model("good")))  # type: ignore[arg-type]
    assert [entry.name for entry in parsed.models] == ["good"]


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "x"},
        key("x", "s", sha256="ABC"),
        key("x", "s", models=None) | {"sha256": 5},
        key("x", "s", models="*"),
        key("x", "s", models=[1]),
        key("x", "s", expiresAt="tomorrow"),
        key("x", "s", expiresAt="2030-01-01T00:00:00"),
        key("x\n", "s"),
        "a string",
    ],
)
def test_a_key_that_cannot_be_read_opens_nothing(bad: object) -> None:
    parsed = parse_keys(keys(bad, key("good", "s")))  # type: ignore[arg-type]
    assert [entry.name for entry in parsed] == ["good"]


def test_a_key_without_patterns_may_use_nothing() -> None:
    (parsed,) = parse_keys(keys(key("x", "s", models=[])))
    assert parsed.allowed.fullmatch("") is None
    assert parsed.allowed.fullmatch("qwen") is None


def test_expiry_is_read_as_a_number_and_as_kubernetes_writes_it() -> None:
    number, text, never = parse_keys(
        keys(key("a", "a", expiresAt=1893456000), key("b", "b", expiresAt="2030-01-01T00:00:00Z"), key("c", "c"))
    )
    assert number.expires_at == text.expires_at == 1893456000
    assert never.expires_at is None


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b'{"models": 1}', b'{"maxRequestBytes": "32Mi"}', b'{"maxRequestBytes": 0}', b'{"maxRequestBytes": true}'])  # fmt: skip
def test_a_document_that_is_none_is_refused_as_a_whole(text: bytes) -> None:
    with pytest.raises(ConfigRejected):
        parse_routes(text)


def test_keys_and_endpoints_documents_are_refused_alike() -> None:
    with pytest.raises(ConfigRejected):
        parse_keys(b'{"keys": {}}')
    with pytest.raises(ConfigRejected):
        parse_endpoints(b"[]")


def test_unknown_fields_of_another_version_are_ignored() -> None:
    assert parse_routes(routes(model("x", novelty={"a": 1}), version=99, novelty=[])).models[0].name == "x"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "anything/at:all", True),
        ("qwen*", "qwen3-8b", True),
        ("qwen*", "my-qwen", False),
        ("*coder", "Org/coder", True),
        ("q?en", "qwen", True),
        ("q?en", "qen", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
        ("a**c", "ac", True),
        ("[ab]", "a", False),
        ("a.c", "abc", False),
        ("QWEN", "qwen", False),
        ("qwen", "qwen2", False),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, name: str, matches: bool) -> None:
    assert (compile_patterns([pattern]).fullmatch(name) is not None) == matches


@given(st.lists(st.text(alphabet="ab*?.[", max_size=6), max_size=3), st.text(alphabet="ab.[", max_size=8))
def test_patterns_agree_with_a_plain_matcher(patterns: list[str], name: str) -> None:
    def plain(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return plain(pattern[1:], text) or bool(text and plain(pattern, text[1:]))
        return bool(text) and pattern[0] in ("?", text[0]) and plain(pattern[1:], text[1:])

    assert (compile_patterns(patterns).fullmatch(name) is not None) == any(plain(p, name) for p in patterns)


def test_a_pattern_full_of_stars_does_not_take_for_ever() -> None:
    began = time.process_time()
    assert compile_patterns(["*a" * 60 + "b"]).fullmatch("a" * 128) is None
    assert time.process_time() - began < 1
