"""The openai Python client, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from e2e import objects
from e2e.client import Service
from e2e.kube import Kube, until
from openai import OpenAI

HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.gateway.url, api_key=service.gateway.key, max_retries=0, timeout=60) as client:
        yield client


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.completion_tokens > 0


def test_an_alias_names_the_same_model(client: OpenAI) -> None:
    assert client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=4).choices


def test_a_stream_comes_in_pieces_and_ends_with_its_usage(client: OpenAI) -> None:
    pieces, usage, reason = [], None, None
    for chunk in client.chat.completions.create(
        model="smollm2", messages=HELLO, max_tokens=16, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                pieces.append(choice.delta.content)
    assert len(pieces) > 1
    assert reason in ("stop", "length")
    assert usage
    assert usage.completion_tokens >= len(pieces)


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model="smollm2", prompt="Once upon a time", max_tokens=8)
    assert answer.choices[0].text


def test_the_models_list_names_models_and_their_aliases(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"smollm2", "gpt-4o-mini"} <= models.keys()
    assert models["smollm2"].object == "model"
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_embeddings(kube: Kube, service: Service, client: OpenAI) -> None:
    # A chat model does not say how to pool; models made for embeddings do.
    args = ["--pooling", "mean"]
    kube.apply(objects.model(service.namespace, "smollm2-embed", task="Embedding", args=args))
    kube.wait_ready("modeldeployment/smollm2-embed", namespace=service.namespace)
    until(lambda: "smollm2-embed" in {m.id for m in client.models.list()}, "the gateway lists it")
    answer = client.embeddings.create(model="smollm2-embed", input=["a cat", "a dog"])
    assert [item.index for item in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 100
    assert answer.data[0].embedding != answer.data[1].embedding
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="smollm2-embed", messages=HELLO)
    kube.delete("modeldeployments", service.namespace, "smollm2-embed")


def test_a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="sk-stoker-wrong").models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_what_the_engine_refuses_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.status_code == 400


def test_a_request_that_is_too_large_is_a_413(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "x" * 40_000_000}])
    assert caught.value.status_code == 413


def test_a_stopped_model_is_a_503_that_says_so(kube: Kube, service: Service, client: OpenAI) -> None:
    kube.apply(objects.model(service.namespace, "stopped", replicas=0))
    kube.wait_ready("modeldeployment/stopped", namespace=service.namespace)
    until(lambda: "stopped" in {m.id for m in client.models.list()}, "the gateway lists it")
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="stopped", messages=HELLO)
    assert caught.value.status_code == 503
    assert caught.value.code == "model_stopped"
    kube.delete("modeldeployments", service.namespace, "stopped")
