from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.bodies import BadBody, read_json_model
from stoker.gateway.config import parse_keys, parse_routes
from stoker.gateway.decide import decide
from stoker.gateway.decision import Decision, Request
from stoker.gateway.table import Table, build_table

NOW = 1000.0
CHAT = "/v1/chat/completions"


def model_of(body: bytes) -> str:
    return read_json_model(Request("POST", "/v1/chat/completions", "", body))


def ask(table: Table, target: str = CHAT, body: Any = None, **more: Any) -> Decision:
    content = body if isinstance(body, bytes) else json.dumps(body or {"model": "qwen"}).encode()
    asked = {"method": "POST", "authorization": "Bearer sk-alice", "body": content, **more}
    return decide(table, Request(target=target, **asked), NOW)


def test_a_good_key_and_a_ready_model_are_sent_to_its_cluster(table: Table) -> None:
    decision = ask(table)
    assert (decision.cluster, decision.model, decision.key, decision.reason) == (
        "team-a/qwen",
        "qwen",
        "alice",
        "allowed",
    )
    assert decision.problem is None


def test_the_same_question_gets_the_same_object(table: Table) -> None:
    assert ask(table) is ask(table)
    assert ask(table, authorization="Bearer sk-bob", body={"model": "gpt-4o"}) is not ask(
        table, body={"model": "gpt-4o"}
    )


def test_refusals_and_unknown_names_are_not_kept(table: Table) -> None:
    for number in range(100):
        ask(table, body={"model": f"no-{number}"})
        ask(table, authorization=f"Bearer sk-{number}")
    assert not table.cache


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_bearer_in_any_case(table: Table, scheme: str) -> None:
    assert ask(table, authorization=f"{scheme} sk-alice").problem is None


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer   ", "Basic sk-alice", "sk-alice", "Bearer sk-alic", "Bearer sk-alice2", "Bearer sk-alice,Bearer x", "Bearer \u20ac", "Bearer " + "x" * 5000],
)  # fmt: skip
def test_anything_else_is_401_with_a_hint_how_to_authenticate(table: Table, authorization: str) -> None:
    decision = ask(table, authorization=authorization)
    assert decision.problem is not None
    assert (decision.problem.status, decision.problem.code) == (401, "invalid_api_key")
    assert dict(decision.problem.headers)["www-authenticate"].startswith("Bearer")
    assert not decision.cluster


def test_an_expired_key_is_no_key(table: Table) -> None:
    old = Request("POST", CHAT, "Bearer sk-old", b'{"model": "qwen"}')
    assert decide(table, old, 99.9).problem is None
    assert decide(table, old, 100.0).reason == "invalid_api_key"


def test_without_a_key_nothing_else_is_told(table: Table) -> None:
    answers = {
        decide(table, Request(method, target, "", body), NOW).reason
        for method in ("GET", "POST", "PUT")
        for target in (CHAT, "/slots", "/v1/models", "/v1/models/qwen")
        for body in (b"", b"nonsense", b'{"model": "qwen"}')
    }
    assert answers == {"invalid_api_key"}


def test_before_the_body_is_read_only_key_path_and_method_count(table: Table) -> None:
    assert ask(table, early=True, body=b"").reason == "early"
    assert not ask(table, early=True, body=b"").cluster
    assert ask(table, early=True, authorization="").reason == "invalid_api_key"
    assert ask(table, "/slots", early=True).reason == "unknown_url"
    assert ask(table, early=True, method="PUT").reason == "method_not_allowed"


def test_a_model_outside_the_keys_patterns_is_not_found(table: Table) -> None:
    assert ask(table, authorization="Bearer sk-bob").reason == "model_not_found"
    assert ask(table, authorization="Bearer sk-bob", body={"model": "gpt-4o"}).cluster == "team-a/qwen"


def test_a_refusal_of_a_model_that_exists_reads_like_one_that_does_not(table: Table) -> None:
    refused, unknown = ask(table, authorization="Bearer sk-bob"), ask(table, body={"model": "qwenn"})
    assert refused.problem
    assert unknown.problem
    assert refused.problem.body.replace(b"`qwen`", b"`qwenn`") == unknown.problem.body
    assert not refused.model, "nor does a metric tell"


def test_what_needs_a_5xx_with_a_body_is_sent_to_the_relay(table: Table) -> None:
    decision = ask(table, body={"model": "asleep"})
    assert (decision.cluster, decision.answer, decision.requested) == ("answer", "model_stopped", "asleep")
    assert decision.problem is None


@pytest.mark.parametrize(
    ("path", "models"),
    [("/v1/chat/completions", {"qwen"}), ("/v1/completions", {"qwen", "coder"}), ("/v1/embeddings", {"embed"})],
)
def test_a_path_is_open_for_models_of_its_tasks(table: Table, path: str, models: set[str]) -> None:
    for name in ("qwen", "coder", "embed"):
        decision = ask(table, path, {"model": name})
        assert decision.reason == ("allowed" if name in models else "unsupported_endpoint")
        if decision.problem:
            assert f"`{min(models)}`" in decision.problem.message


def test_a_model_that_ranks_is_open_on_its_own_path_only() -> None:
    ranks = build_table(
        parse_routes(routes(model("ranker", task="Rerank"))),
        parse_keys(keys(key("alice", "sk-alice"))),
        frozenset({"team-a/ranker"}),
    )
    assert ask(ranks, "/v1/rerank", {"model": "ranker"}).reason == "allowed"
    assert ask(ranks, "/v1/embeddings", {"model": "ranker"}).reason == "unsupported_endpoint"


def test_the_list_of_models_comes_from_the_relay(table: Table) -> None:
    decision = ask(table, "/v1/models?limit=5", method="GET", body=b"")
    assert (decision.cluster, decision.answer, decision.key) == ("answer", "models", "alice")


@pytest.mark.parametrize("target", ["/v1/models/..", "/v1/models/../slots", "/v1/models/%2e%2e%2fslots", "/v1/models/", "/v1/models//qwen", "/v1/models/qwen/"])  # fmt: skip
def test_the_name_of_a_model_in_the_path_is_only_ever_a_name(table: Table, target: str) -> None:
    assert ask(table, target, method="GET").reason == "model_not_found"


@given(st.text(max_size=30))
def test_no_other_path_gets_to_an_engine(tail: str) -> None:
    table = _only_qwen()
    for target in (tail, "/" + tail, "/v1/" + tail, CHAT + tail):
        decision = ask(table, target)
        if target.partition("?")[0] not in (CHAT, "/v1/completions"):
            assert decision.cluster != "team-a/qwen"


def _only_qwen() -> Table:
    from unit.gateway.conftest import key, keys, model, routes

    from stoker.gateway.config import parse_keys, parse_routes
    from stoker.gateway.table import build_table

    return build_table(parse_routes(routes(model("qwen"))), parse_keys(keys(key("alice", "sk-alice"))))  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values), st.text(min_size=1), st.booleans())
def test_the_model_of_any_object_is_read(rest: dict[str, Any], name: str, ascii_only: bool) -> None:
    body = json.dumps({**rest, "model": name}, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    assert model_of(body) == name


def test_an_inner_model_is_not_the_model() -> None:
    assert model_of(b'{"tools": [{"model": "a", "model": "b"}], "x": "\\u0022model\\u0022", "model": "q"}') == "q"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "a", "model": "a"}', "duplicate_model"),
        (b'{"model": "a", "m\\u006fdel": "b"}', "duplicate_model"),
        (b'{"\\u006dodel": "a", "model": "b"}', "duplicate_model"),
        (b'{"mod\\u0065l": "a", "\\u006d\\u006f\\u0064\\u0065\\u006c": "b"}', "duplicate_model"),
        (b'{"model": "a", "x": Infinity}', "invalid_json"),
        (b'{"model": "a", "x": NaN, "y": "\\u0041"}', "invalid_json"),
        (b'{"model": "a",}', "invalid_json"),
        (b"{'model': 'a'}", "invalid_json"),
        (b'{"model": "a"} x', "invalid_json"),
        (b'{"model": "a\nb"}', "invalid_json"),
        ('{"model": "a"}'.encode("utf-32"), "invalid_json"),
        (b"null", "invalid_body"),
        (b"{}", "missing_model"),
        (b'{"model": true}', "invalid_model"),
    ],
)
def test_what_parsers_disagree_on_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(BadBody) as caught:
        model_of(body)
    assert (caught.value.problem.status, caught.value.problem.code) == (400, code)


def test_a_refusal_quotes_at_most_a_readable_length_of_the_clients_words(table: Table) -> None:
    decision = ask(table, body={"model": "x" * 100_000})
    assert decision.problem
    assert len(decision.problem.body) < 600


def test_errors_are_in_the_words_of_the_path_that_was_asked(table: Table) -> None:
    assert ask(table, "/v1/messages", {"model": "nope"}).dialect == "anthropic"
    assert ask(table, "/v1/messages", authorization="").dialect == "anthropic"
    assert ask(table, "/api/chat", authorization="").dialect == "ollama"
    assert ask(table, "/v1/messagesx", {"model": "nope"}).dialect == "openai"
    assert ask(table, CHAT, {"model": "nope"}).dialect == "openai"


@pytest.mark.parametrize("charset", ["utf-7", "UTF-16", '"utf-7"', "utf-8; charset=utf-7", "", "'cp037'"])
def test_a_body_in_another_charset_than_ours_is_refused(table: Table, charset: str) -> None:
    told = f"application/json; Charset={charset}"
    assert ask(table, CHAT, {"model": "qwen"}, content_type=told).reason == "invalid_json"


@pytest.mark.parametrize(
    "told", ["", "application/json", "application/json; charset=utf-8", 'text/plain;charset="UTF-8"', "a=b"]
)
def test_a_body_in_utf_8_is_read_whatever_type_it_is_said_to_be(table: Table, told: str) -> None:
    assert ask(table, CHAT, {"model": "qwen"}, content_type=told).reason == "allowed"


def test_a_form_routes_by_its_field(table: Table) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nqwen\r\n--x--\r\n'
    form = {"body": body, "content_type": "multipart/form-data; boundary=x"}
    assert ask(table, "/v1/audio/transcriptions", **form).reason == "unsupported_endpoint"
    assert ask(table, "/v1/audio/transcriptions", **{**form, "content_type": ""}).reason == "invalid_body"
    assert (
        ask(table, "/v1/audio/transcriptions", **{**form, "body": body.replace(b"model", b"other")}).reason
        == "missing_model"
    )
