"""The anthropic client, which sends its key in x-api-key and expects errors in Anthropic's shape."""

from __future__ import annotations

from typing import Any

import anthropic
import world as worlds
from anthropic import Anthropic
from world import World

HI: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}


def client(world: World, key: str = "") -> Anthropic:
    return Anthropic(base_url=world.url, api_key=key or world.key, max_retries=0, timeout=120)


def check_message(world: World) -> None:
    answer = client(world).messages.create(model=world.model, messages=HI, max_tokens=12)
    block: Any = answer.content[0]
    world.expect(block.text, "hi")
    assert answer.usage.output_tokens > 0


def check_stream(world: World) -> None:
    with client(world).messages.stream(model=world.model, messages=HI, max_tokens=12, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason in ("end_turn", "max_tokens")
    world.expect(text, "hi")


def check_bearer(world: World) -> None:
    """`auth_token` goes out as Authorization: Bearer."""
    with Anthropic(base_url=world.url, auth_token=world.key, max_retries=0) as bearer:
        assert bearer.messages.create(model=world.model, messages=HI, max_tokens=4).content


def check_tool_use(world: World, strict: bool) -> None:
    answer = client(world).messages.create(
        model=world.model, messages=HI, tools=[WEATHER], tool_choice={"type": "any"}, max_tokens=100
    )
    block: Any = answer.content[-1]
    assert (block.type, block.name) == ("tool_use", "get_weather")
    assert block.input["city"] in ("Paris", "Rome")


def check_count_tokens(world: World) -> None:
    assert client(world).messages.count_tokens(model=world.model, messages=HI).input_tokens > 0


def check_wrong_key(world: World) -> None:
    with worlds.raises(anthropic.AuthenticationError) as caught:
        client(world, "sk-wrong").messages.create(model=world.model, messages=HI, max_tokens=4)
    body: Any = caught.error.body
    assert body["error"]["type"] == "authentication_error"


def check_unknown_model(world: World) -> None:
    with worlds.raises(anthropic.NotFoundError) as caught:
        client(world).messages.create(model="no-such-model", messages=HI, max_tokens=4)
    body: Any = caught.error.body
    assert body["error"]["type"] == "not_found_error"


if __name__ == "__main__":
    worlds.run(globals())
