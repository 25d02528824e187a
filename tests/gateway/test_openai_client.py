"""The openai Python client, unchanged, against real Envoy, policy and relay with a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from gateway.conftest import World
from openai import OpenAI

HELLO: Any = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def client(world: World) -> Iterator[OpenAI]:
    base = f"http://127.0.0.1:{world.pod.port}/v1"
    with OpenAI(base_url=base, api_key="sk-alice", max_retries=0, timeout=30) as client:
        yield client


def test_chat_stream_completion_embedding_and_models(client: OpenAI) -> None:
    assert client.chat.completions.create(model="qwen", messages=HELLO).choices[0].message.content == "from one"
    stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, metadata={"n": "3"})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "0 1 2 "
    assert client.completions.create(model="Org/coder", prompt="x").choices[0].text == "from one"
    assert client.embeddings.create(model="embed", input="x", encoding_format="float").data[0].embedding == [0.5, 0.25]
    assert "gpt-4o" in {model.id for model in client.models.list()}
    assert client.models.retrieve("Org/coder").id == "Org/coder"


def test_a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="sk-wrong").models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_a_model_for_something_else_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="embed", messages=HELLO)
    assert caught.value.code == "unsupported_endpoint"


def test_a_request_without_a_model_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=None, messages=HELLO)  # type: ignore[call-overload]
    assert caught.value.code == "missing_model"


@pytest.mark.parametrize(("model", "code"), [("asleep", "model_stopped"), ("loading", "model_not_ready")])
def test_a_model_that_does_not_serve_is_an_internal_server_error_with_its_reason(
    client: OpenAI, model: str, code: str
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (503, code)


def test_a_request_that_is_too_large_is_a_413(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": "x" * 40_000_000}])
    assert caught.value.status_code == 413


def test_a_path_that_is_not_served_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.moderations.create(input="x")
    assert caught.value.code == "unknown_url"
