"""llama-index with its OpenAI-like model and embedding."""

from __future__ import annotations

from typing import Any

import world as worlds
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from world import World


def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def model(world: World, **more: Any) -> OpenAILike:
    usual: dict[str, Any] = {"max_tokens": 12, "is_chat_model": True, "context_window": 2048, **more}
    return OpenAILike(model=world.model, api_base=world.base, api_key=world.key, max_retries=0, timeout=120, **usual)


def check_complete(world: World) -> None:
    world.expect(model(world).complete("hi").text, "hi")


def check_legacy_completion(world: World) -> None:
    world.expect(model(world, is_chat_model=False).complete("hi").text, "hi")


def check_chat(world: World) -> None:
    world.expect(model(world).chat([ChatMessage(role="user", content="hi")]).message.content, "hi")


def check_stream(world: World) -> None:
    pieces = [piece.delta or "" for piece in model(world).stream_chat([ChatMessage(role="user", content="hi")])]
    world.expect("".join(pieces), "hi")


async def check_async(world: World) -> None:
    answer = await model(world).achat([ChatMessage(role="user", content="hi")])
    world.expect(answer.message.content, "hi")


def check_tools(world: World, strict: bool) -> None:
    asking = model(world, is_function_calling_model=True)
    tools = [FunctionTool.from_defaults(get_weather)]
    answer = asking.chat_with_tools(tools, user_msg='CALLTOOL get_weather {"city": "Rome"}')
    (call,) = asking.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Rome"})


def check_embeddings(world: World, embedding_model: str) -> None:
    embedding = OpenAILikeEmbedding(model_name=embedding_model, api_base=world.base, api_key=world.key)
    assert len(embedding.get_text_embedding("a cat")) >= 4
    assert len(embedding.get_text_embedding_batch(["a cat", "a dog"])) == 2


if __name__ == "__main__":
    worlds.run(globals())
