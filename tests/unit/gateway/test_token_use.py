from __future__ import annotations

from typing import Any

from stoker.gateway.token_use import TokenCounter, TokenUse

STREAM = "text/event-stream"


def line(**more: Any) -> dict[str, Any]:
    return {"path": "/v1/chat/completions", "cluster": "team-a/qwen", "code": 200, "flags": "-", **more}


def test_what_the_engine_counted_is_taken_as_it_is() -> None:
    assert TokenCounter().read(line(prompt=10, completion=5, cached=3, reasoning=1)) == TokenUse(10, 5, 3, 1)


def test_a_stream_that_was_left_is_estimated_by_what_complete_ones_of_its_model_took() -> None:
    counter = TokenCounter()
    left = line(flags="DC", type=STREAM, bytes_in=4000, bytes_out=24000)
    assert counter.read(left) == TokenUse(1000, 100, estimated=True)
    for _ in range(200):
        counter.read(line(type=STREAM, prompt=100, completion=100, bytes_in=1000, bytes_out=12000, ms=1000))
    assert counter.read(left) == TokenUse(400, 200, estimated=True)
    assert counter.read({**left, "cluster": "team-a/other"}) == TokenUse(1000, 100, estimated=True)


def test_a_plain_call_that_was_left_is_estimated_by_its_time() -> None:
    counter = TokenCounter()
    left = line(flags="DC", code=0, bytes_in=400, ms=5000)
    assert counter.read(left) == TokenUse(100, 0, estimated=True)
    counter.read(line(prompt=100, completion=100, bytes_in=400, ms=2000))
    assert counter.read(left) == TokenUse(100, 250, estimated=True)


def test_a_broken_stream_of_anthropics_form_has_told_its_prompt_only() -> None:
    left = line(path="/v1/messages", flags="DC", type=STREAM, prompt=30, completion=1, bytes_in=1000, bytes_out=2400)
    assert TokenCounter().read(left) == TokenUse(30, 10, estimated=True)


def test_a_broken_stream_whose_engine_tells_as_it_goes_is_exact() -> None:
    assert TokenCounter().read(line(flags="DC", type=STREAM, prompt=30, completion=7)) == TokenUse(30, 7)


def test_refusals_and_what_generates_nothing_take_nothing() -> None:
    assert TokenCounter().read(line(code=400, bytes_in=4000)) == TokenUse()
    assert TokenCounter().read(line(code=503, flags="UF", bytes_in=4000)) == TokenUse()
    assert TokenCounter().read(line(path="/tokenize", bytes_in=4000)) == TokenUse()
