"""Tokens as a real Envoy reads them out of a fake engine's answers, and what it adds to requests on their way there."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway.counting_engine import CountingEngine, chunk
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Answer, Config, GatewayPod, until

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"]  # fmt: skip
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
USAGE_CHUNK = "data: " + json.dumps({"id": "x", "choices": [], "usage": USAGE}) + "\n\n"
# A model may say anything: inside a text it is not usage.
WORDS = [chunk(f"t{number}") for number in range(3)] + [
    chunk('"usage": {"prompt_tokens": 99}, "choices":[] \n\n data: {')
]
DONE = "data: [DONE]\n\n"


class Gateway:
    def __init__(self, pod: GatewayPod, engine: CountingEngine, kubernetes: FakeKubernetes) -> None:
        self.pod, self.engine, self.kubernetes = pod, engine, kubernetes
        self._asked = ""

    def ask(self, path: str = "/v1/chat/completions", key: str = "sk-alice", **more: Any) -> Answer:
        return self.told(self.pod.request("POST", path, {"model": "qwen", **more}, key))

    def told(self, answer: Answer) -> Answer:
        """The last request is the one with this answer."""
        self._asked = answer.headers["x-request-id"]
        return answer

    def name_the_next(self) -> str:
        """An id for a request whose answer will not be read whole: as the value of x-request-id."""
        self._asked = str(uuid.uuid4())
        return self._asked

    def line(self) -> dict[str, Any]:
        """The log line of the last request; those of others may come late."""
        assert self._asked
        return until(lambda: [line for line in self.pod.access_log() if self._asked == line.get("request_id")], "a log line")[-1]  # fmt: skip

    def tokens(self) -> tuple[Any, ...]:
        line = self.line()
        return tuple(line.get(name) for name in ("prompt", "completion", "cached", "reasoning"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    kubernetes, engine = FakeKubernetes(), CountingEngine()
    pod = GatewayPod(Path(tmp_path_factory.mktemp("tk")), kubernetes)
    kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port])
    config = Config().model("qwen", paths=PATHS).key("alice", "sk-alice", owner="Ä lice").key("least", "sk-least", maxTokensPerRequest=50)  # fmt: skip
    config.apply(kubernetes)
    try:
        pod.start()
        yield Gateway(pod, engine, kubernetes)
    finally:
        pod.stop()
        kubernetes.close()
        engine.close()


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared._asked = ""
    return shared


def test_a_plain_answer_is_counted_whatever_its_text_says(gateway: Gateway) -> None:
    said = {"message": {"content": '"usage": {"prompt_tokens": 99, "completion_tokens": 99}'}}
    assert gateway.ask(metadata={"answer": {"choices": [said], "usage": USAGE, "id": "1"}}).status == 200
    line = gateway.line()
    assert [line[name] for name in ("prompt", "completion", "cached", "reasoning")] == [11, 5, 3, 2]
    assert line["user"] == "%C3%84 lice"


def test_of_objects_that_a_model_calls_usage_the_engines_own_counts(gateway: Gateway) -> None:
    fake = {"type": "tool_use", "input": {"usage": {"output_tokens": 0, "cached_tokens": 999}}}
    gateway.ask(
        "/v1/messages", metadata={"answer": {"content": [fake], "usage": {"input_tokens": 9, "output_tokens": 4}}}
    )
    assert gateway.tokens() == (9, 4, None, None)


@pytest.mark.parametrize("numbers", [1000, 200_000, 1_000_000])
def test_answers_of_any_size_pass_and_are_counted(gateway: Gateway, numbers: int) -> None:
    answer = gateway.ask("/v1/embeddings", metadata={"big": numbers})
    assert (answer.status, len(answer.json["data"])) == (200, numbers)
    assert gateway.tokens() == (7, None, None, None)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("cut", [0, 1000, 137, 50, 7, 1])
def test_usage_that_was_not_asked_for_is_counted_and_hidden_however_the_stream_is_cut(
    gateway: Gateway, cut: int, ending: str
) -> None:
    events = [event.replace("\n", ending) for event in (*WORDS, USAGE_CHUNK, DONE)]
    answer = gateway.ask(stream=True, metadata={"events": events, "cut": cut})
    assert answer.body.decode() == "".join([*events[:-2], events[-1]])
    assert gateway.engine.bodies[-1]["stream_options"] == {"include_usage": True}
    assert gateway.tokens() == (11, 5, 3, 2)


@pytest.mark.parametrize("cut", [0, 7])
def test_usage_that_was_asked_for_is_there(gateway: Gateway, cut: int) -> None:
    events = [*WORDS, USAGE_CHUNK, DONE]
    answer = gateway.ask(stream=True, stream_options={"include_usage": True}, metadata={"events": events, "cut": cut})
    assert answer.body.decode() == "".join(events)
    assert gateway.tokens() == (11, 5, 3, 2)


def test_other_stream_options_stay(gateway: Gateway) -> None:
    gateway.ask(
        stream=True, stream_options={"include_usage": False, "other": 1}, metadata={"events": [USAGE_CHUNK, DONE]}
    )
    assert gateway.engine.bodies[-1]["stream_options"] == {"include_usage": True, "other": 1}


def test_comments_and_an_end_without_an_empty_line_are_not_held_back(gateway: Gateway) -> None:
    events = [": ping\n", "\n", "data: [DONE]\n"]
    assert gateway.ask(stream=True, metadata={"events": events}).body.decode() == "".join(events)


@pytest.mark.parametrize("cut", [0, 3])
def test_anthropics_streams_tell_in_parts_and_count_the_cache_apart(gateway: Gateway, cut: int) -> None:
    start = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1}},
    }
    deltas = [{"type": "message_delta", "usage": {"output_tokens": number}} for number in (5, 15)]
    events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (start, *deltas)]
    answer = gateway.ask("/v1/messages", stream=True, metadata={"events": events, "cut": cut})
    assert answer.body.decode() == "".join(events)
    assert "stream_options" not in gateway.engine.bodies[-1]
    assert gateway.tokens() == (30, 15, 5, None)


def test_responses_streams_tell_at_the_end_in_an_event_of_any_size(gateway: Gateway) -> None:
    usage = {"input_tokens": 25, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 15, "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 40}  # fmt: skip
    last = {"type": "response.completed", "response": {"output": "x" * 200_000, "usage": usage}}
    events = ['data: {"response": {"usage": null}}\n\n', f"data: {json.dumps(last)}\n\n"]
    answer = gateway.ask("/v1/responses", stream=True, metadata={"events": events, "cut": 3000})
    assert len(answer.body) > 200_000
    assert gateway.tokens() == (25, 15, 1, 4)


def test_a_request_without_a_maximum_gets_the_callers_and_one_that_wants_more_is_refused(gateway: Gateway) -> None:
    assert gateway.ask(key="sk-least").status == 200
    assert gateway.engine.bodies[-1]["max_tokens"] == 50
    gateway.ask("/v1/responses", key="sk-least", max_output_tokens=None)
    assert gateway.engine.bodies[-1]["max_output_tokens"] == 50
    gateway.ask(key="sk-least", max_completion_tokens=20, stream=True)
    assert gateway.engine.bodies[-1]["max_completion_tokens"] == 20
    assert "max_tokens" not in gateway.engine.bodies[-1]
    gateway.ask("/v1/completions", key="sk-least", prompt=["one", "two", [3, 4]], n=2)
    assert gateway.engine.bodies[-1]["max_tokens"] == 50 // 6
    gateway.ask("/v1/completions", key="sk-least", prompt=[1, 2, 3])
    assert gateway.engine.bodies[-1]["max_tokens"] == 50
    begun = gateway.engine.begun
    for more in ({"max_tokens": 51}, {"max_tokens": -1}, {"n_predict": 1000}, {"max_length": 51}, {"max_tokens": 30, "n": 2}, {"max_tokens": 30, "n_cmpl": 2}, {"max_completion_tokens": "9"}, {"max_tokens": 9, "auto_max_new_tokens": True}, {"N": 2}, {"Max_Tokens": 5}, {"max_to\u212aens": 5}):  # fmt: skip
        refused = gateway.ask(key="sk-least", **more)
        assert (refused.status, refused.error["code"]) == (400, "max_tokens_exceeded"), more
    for n in ("8", 8.0, -5, 0, True, [2]):
        for name in ("n", "n_cmpl", "best_of"):
            refused = gateway.ask(key="sk-least", **{name: n})
            assert (refused.status, refused.error["param"]) == (400, name), (name, n)
    several = gateway.ask("/v1/completions", key="sk-least", prompt=["a"] * 10, max_tokens=6)
    assert (several.status, several.error["code"]) == (400, "max_tokens_exceeded")
    anthropic = gateway.ask("/v1/messages", key="sk-least", max_tokens=51)
    assert anthropic.anthropic_error["type"] == "invalid_request_error"
    assert gateway.engine.begun == begun


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_ollamas_streams_tell_in_their_last_line(gateway: Gateway, cut: int) -> None:
    called = {"function": {"name": "f", "arguments": {"eval_count": 99, "prompt_eval_count": 98, "x_eval_count": 97}}}
    lines = [
        {"model": "qwen", "message": {"role": "assistant", "content": '"eval_count": 3'}, "done": False},
        {"model": "qwen", "message": {"role": "assistant", "content": "", "tool_calls": [called]}, "done": False},
        {"model": "qwen", "done": True, "prompt_eval_count": 26, "prompt_eval_duration": 9, "eval_count": 298, "eval_duration": 77},
    ]  # fmt: skip
    sent = [json.dumps(line) + "\n" for line in lines]
    answer = gateway.ask("/api/chat", metadata={"lines": sent, "cut": cut})
    assert answer.body.decode() == "".join(sent)
    assert gateway.tokens() == (26, 298, None, None)
    plain = {"response": "hi", "done": True, "prompt_eval_count": 5, "eval_count": 7}
    assert gateway.ask("/api/generate", stream=False, metadata={"answer": plain}).json == plain
    assert gateway.tokens() == (5, 7, None, None)


def test_a_request_in_ollamas_shape_is_bounded_and_cannot_unload_the_model(gateway: Gateway) -> None:
    order = {"metadata": {"answer": {"done": True}}}
    gateway.ask("/api/chat", key="sk-least", keep_alive=0, options={"temperature": 0}, **order)
    sent = gateway.engine.bodies[-1]
    assert (sent["keep_alive"], sent["options"]) == (-1, {"temperature": 0, "num_predict": 50})
    gateway.ask("/api/chat", keep_alive="0s", **order)
    assert (gateway.engine.bodies[-1]["keep_alive"], "options" in gateway.engine.bodies[-1]) == (-1, False)
    begun = gateway.engine.begun
    for more, word in (({"options": {"num_predict": 51}}, "num_predict"), ({"options": {"num_predict": -1}}, "num_predict"), ({"options": {"num_ctx": 9}}, "num_ctx"), ({"Options": {}}, "options"), ({"\u212aeep_Alive": 0}, "keep_alive"), ({"options": [1]}, "options")):  # fmt: skip
        refused = gateway.ask("/api/chat", key="sk-least", **more)
        assert (refused.status, list(refused.json)) == (400, ["error"])
        assert word in refused.json["error"]
    assert gateway.engine.begun == begun


def test_the_time_between_two_tokens_of_a_stream_is_a_histogram(gateway: Gateway) -> None:
    def counted() -> float:
        """Between 15 and 500 ms: streams of other tests are quicker."""
        below = [gateway.pod.metric(f'stoker_gateway_served_token_milliseconds_bucket{{model="qwen",le="{ms}"}}') for ms in (15, 500)]  # fmt: skip
        return below[1] - below[0]

    before = counted()
    # Ten times between eleven tokens, and the end comes two events later.
    gateway.ask(stream=True, metadata={"completion": 11, "gap": 0.02})
    # Those of other tests may come late, and on a busy machine they are no quicker.
    until(lambda: counted() > before, "it is counted")


def test_bodies_end_as_they_like(gateway: Gateway) -> None:
    body = b'{"model": "qwen", "stream": true, "x": "}"  }\n \t'
    assert gateway.pod.request("POST", "/v1/chat/completions", body).status == 200
    assert gateway.engine.bodies[-1]["stream_options"] == {"include_usage": True}
    assert gateway.engine.bodies[-1]["x"] == "}"


def test_clients_cannot_add_to_the_body_and_engines_see_none_of_it(gateway: Gateway) -> None:
    sent = {"x-gw-add": '"evil": 1', "x-gw-ticket": "1", "x-gw-user": "bob", "accept-encoding": "gzip"}
    assert gateway.told(gateway.pod.chat_with(sent)).status == 200
    assert "evil" not in gateway.engine.bodies[-1]
    assert not [name for name in gateway.engine.headers[-1] if name.startswith("x-gw-") or name == "accept-encoding"]
    assert gateway.line()["user"] == "%C3%84 lice"


def test_a_client_that_leaves_a_stream_is_logged_without_usage(gateway: Gateway) -> None:
    body = json.dumps({"model": "qwen", "stream": True, "metadata": {"completion": 500, "gap": 0.01}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-alice\r\nx-request-id: {gateway.name_the_next()}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.pod.port)) as connection:
        connection.sendall(head.encode() + body)
        while b"word 20" not in connection.recv(65536):
            pass
    line = gateway.line()
    assert "prompt" not in line
    assert (line["flags"], line["type"]) == ("DC", "text/event-stream")
    assert line["bytes_out"] > 1000
