"""litellm as a library."""

from __future__ import annotations

import os
from typing import Any

# Before the import: it would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import world as worlds
from world import World

HI: Any = [{"role": "user", "content": "hi"}]


def call(world: World, **more: Any) -> dict[str, Any]:
    usual = {"model": f"openai/{world.model}", "api_base": world.base, "api_key": world.key, "num_retries": 0}
    return {**usual, "messages": HI, "max_tokens": 12, **more}


def check_completion(world: World) -> None:
    answer: Any = litellm.completion(**call(world))
    world.expect(answer.choices[0].message.content, "hi")
    assert answer.usage.total_tokens > 0


def check_stream(world: World) -> None:
    """It does not ask for usage."""
    stream: Any = litellm.completion(**call(world, stream=True))
    world.expect("".join(chunk.choices[0].delta.content or "" for chunk in stream), "hi")


async def check_async(world: World) -> None:
    answer: Any = await litellm.acompletion(**call(world))
    world.expect(answer.choices[0].message.content, "hi")


def check_responses(world: World) -> None:
    usual = call(world)
    del usual["messages"], usual["max_tokens"]
    answer: Any = litellm.responses(**usual, input="hi", max_output_tokens=16)
    assert answer.output


def check_embedding(world: World, embedding_model: str) -> None:
    answer: Any = litellm.embedding(
        model=f"openai/{embedding_model}", input=["a cat"], api_base=world.base, api_key=world.key
    )
    assert len(answer.data[0]["embedding"]) >= 4


def check_transcription(world: World, audio_model: str) -> None:
    file = ("speech.wav", b"RIFF" + bytes(1000), "audio/wav")
    answer: Any = litellm.transcription(
        model=f"openai/{audio_model}", file=file, api_base=world.base, api_key=world.key
    )
    assert answer.text.endswith("1004 bytes")


def check_wrong_key(world: World) -> None:
    with worlds.raises(litellm.AuthenticationError) as caught:
        litellm.completion(**call(world, api_key="sk-wrong"))
    assert caught.error.status_code == 401


if __name__ == "__main__":
    worlds.run(globals())
