"""instructor: typed answers by each of its ways."""

from __future__ import annotations

from typing import Any, Literal

import instructor
import world as worlds
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from world import World

HI: Any = [{"role": "user", "content": "Pick a color."}]


class Pick(BaseModel):
    """A color."""

    color: Literal["red", "blue"]


def ask(world: World, mode: instructor.Mode) -> Pick:
    client = instructor.from_openai(OpenAI(base_url=world.base, api_key=world.key, max_retries=0), mode=mode)
    answer: Pick = client.chat.completions.create(
        model=world.model, messages=HI, response_model=Pick, max_retries=1, max_tokens=100
    )
    return answer


def check_json_schema(world: World) -> None:
    assert isinstance(ask(world, instructor.Mode.JSON_SCHEMA), Pick)


def check_tools(world: World, strict: bool) -> None:
    """Names the tool that must be called."""
    assert isinstance(ask(world, instructor.Mode.TOOLS), Pick)


def check_json(world: World, strict: bool) -> None:
    """The schema stands in the prompt only, which a small model does not keep to."""
    assert isinstance(ask(world, instructor.Mode.JSON), Pick)


async def check_async(world: World) -> None:
    client = instructor.from_openai(
        AsyncOpenAI(base_url=world.base, api_key=world.key, max_retries=0), mode=instructor.Mode.JSON_SCHEMA
    )
    answer = await client.chat.completions.create(
        model=world.model, messages=HI, response_model=Pick, max_retries=1, max_tokens=100
    )
    assert isinstance(answer, Pick)


if __name__ == "__main__":
    worlds.run(globals())
