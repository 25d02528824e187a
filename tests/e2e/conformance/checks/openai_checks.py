"""The openai client."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import world as worlds
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from world import World

HI: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Pick(BaseModel):
    """Bounded, so that the smallest model comes to an end."""

    color: Literal["red", "blue"]


def client(world: World) -> OpenAI:
    return OpenAI(base_url=world.base, api_key=world.key, max_retries=0, timeout=120)


def check_models(world: World) -> None:
    assert world.model in {model.id for model in client(world).models.list()}
    assert client(world).models.retrieve(world.model).id == world.model


def check_chat(world: World) -> None:
    answer = client(world).chat.completions.create(model=world.model, messages=HI, max_tokens=12)
    world.expect(answer.choices[0].message.content, "hi")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def check_async_chat(world: World) -> None:
    async with AsyncOpenAI(base_url=world.base, api_key=world.key, max_retries=0, timeout=120) as asynchronous:
        answer = await asynchronous.chat.completions.create(model=world.model, messages=HI, max_tokens=12)
        world.expect(answer.choices[0].message.content, "hi")
        text = ""
        async for chunk in await asynchronous.chat.completions.create(
            model=world.model, messages=HI, max_tokens=12, stream=True
        ):
            # Nobody asked for usage, so there is no chunk without a choice.
            text += chunk.choices[0].delta.content or ""
        world.expect(text, "hi")


def check_stream_with_usage(world: World) -> None:
    text, usages = "", []
    for chunk in client(world).chat.completions.create(
        model=world.model, messages=HI, max_tokens=12, stream=True, stream_options={"include_usage": True}
    ):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usages += [chunk.usage] if chunk.usage else []
    world.expect(text, "hi")
    assert len(usages) >= 1
    assert usages[-1].completion_tokens > 0


def check_tool_call(world: World, strict: bool) -> None:
    answer = client(world).chat.completions.create(
        model=world.model, messages=HI, tools=[WEATHER], tool_choice="required", max_tokens=100
    )
    assert answer.choices[0].message.tool_calls, answer
    call: Any = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    messages = [*HI, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    again = client(world).chat.completions.create(model=world.model, messages=messages, tools=[WEATHER], max_tokens=12)
    assert again.choices[0].message.content == "TOOLRESULT: sunny"


def check_streamed_tool_call(world: World, strict: bool) -> None:
    name, arguments = "", ""
    for chunk in client(world).chat.completions.create(
        model=world.model, messages=HI, tools=[WEATHER], tool_choice="required", max_tokens=100, stream=True
    ):
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert json.loads(arguments)["city"] in ("Paris", "Rome")


def check_structured_output(world: World) -> None:
    answer = client(world).chat.completions.parse(model=world.model, messages=HI, response_format=Pick, max_tokens=100)
    assert answer.choices[0].message.parsed
    assert answer.choices[0].message.parsed.color in ("red", "blue")


def check_responses(world: World) -> None:
    world.expect(client(world).responses.create(model=world.model, input="hi", max_output_tokens=12).output_text, "hi")


def check_streamed_responses(world: World) -> None:
    text, usage = "", None
    for event in client(world).responses.create(model=world.model, input="hi", max_output_tokens=12, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type in ("response.completed", "response.incomplete"):
            usage = event.response.usage
    world.expect(text, "hi")
    assert usage
    assert usage.output_tokens > 0


def check_completions(world: World) -> None:
    answer = client(world).completions.create(model=world.model, prompt="hi", max_tokens=12)
    world.expect(answer.choices[0].text, "hi")


def check_embeddings(world: World, embedding_model: str) -> None:
    """By default the client asks for base64 and unpacks it."""
    answer = client(world).embeddings.create(model=embedding_model, input=["a cat", "a dog"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) >= 4
    assert not world.strict or answer.data[0].embedding == [0.5, -0.25, 0.125, 1.0]
    floats = client(world).embeddings.create(model=embedding_model, input="a cat", encoding_format="float")
    assert isinstance(floats.data[0].embedding[0], float)


def check_audio_upload(world: World, audio_model: str) -> None:
    file = ("speech.wav", b"RIFF" + bytes(300_000), "audio/wav")
    answer = client(world).audio.transcriptions.create(model=audio_model, file=file)
    assert answer.text == f"PONG {audio_model}: 300004 bytes"


def check_wrong_key(world: World) -> None:
    with worlds.raises(openai.AuthenticationError) as caught:
        client(world).with_options(api_key="sk-wrong").models.list()
    assert (caught.error.status_code, caught.error.code) == (401, "invalid_api_key")


def check_unknown_model(world: World) -> None:
    with worlds.raises(openai.NotFoundError) as caught:
        client(world).chat.completions.create(model="no-such-model", messages=HI)
    assert caught.error.code == "model_not_found"


if __name__ == "__main__":
    worlds.run(globals())
