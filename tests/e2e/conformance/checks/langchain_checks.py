"""langchain-openai."""

from __future__ import annotations

from typing import Any, Literal

import world as worlds
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
from world import World


class Pick(BaseModel):
    """A color."""

    color: Literal["red", "blue"]


@tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def model(world: World, **more: Any) -> ChatOpenAI:
    key = SecretStr(world.key)
    usual: dict[str, Any] = {"max_completion_tokens": 12, **more}
    return ChatOpenAI(model=world.model, base_url=world.base, api_key=key, max_retries=0, timeout=120, **usual)


def check_invoke(world: World) -> None:
    answer = model(world).invoke("hi")
    world.expect(str(answer.content), "hi")
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] > 0


def check_stream_with_usage(world: World) -> None:
    chunks = list(model(world, stream_usage=True).stream("hi"))
    world.expect("".join(str(chunk.content) for chunk in chunks), "hi")
    assert any(chunk.usage_metadata for chunk in chunks)


async def check_async(world: World) -> None:
    world.expect(str((await model(world).ainvoke("hi")).content), "hi")


def check_tools(world: World, strict: bool) -> None:
    answer = model(world, max_completion_tokens=100).bind_tools([get_weather], tool_choice="any").invoke("hi")
    assert answer.tool_calls[0]["name"] == "get_weather"
    assert answer.tool_calls[0]["args"]["city"] in ("Paris", "Rome")


def check_structured_output(world: World) -> None:
    picked = model(world, max_completion_tokens=100).with_structured_output(Pick, method="json_schema").invoke("hi")
    assert isinstance(picked, Pick)


def check_responses(world: World) -> None:
    assert model(world, use_responses_api=True, max_completion_tokens=16).invoke("hi").text


def check_embeddings(world: World, embedding_model: str) -> None:
    """With check_embedding_ctx_length it would send tokens of OpenAI's own vocabulary, which it downloads first."""
    embeddings = OpenAIEmbeddings(
        model=embedding_model, base_url=world.base, api_key=SecretStr(world.key), check_embedding_ctx_length=False
    )
    vectors = embeddings.embed_documents(["a cat", "a dog"])
    assert len(vectors) == 2
    assert len(vectors[0]) >= 4


if __name__ == "__main__":
    worlds.run(globals())
