"""Members of a body that say more than they seem to: past what is added to it, past adapters, past what an engine is asked for."""

from __future__ import annotations

from gateway.ways.bodies import rejected
from gateway.ways.registry import CHAT_PATH, EMBED_PATH, Fortress, refused, way


@way("white space behind the body, so that nothing can be added to it")
def white_space_behind(fortress: Fortress) -> None:
    """An adapter that is not the caller's, or no limit of tokens, would be left standing."""
    body = b'{"model": "embed", "lora": [{"id": 0, "scale": 1}]}'
    rejected(fortress, body + b" " * 256, body + b"\n" * 300, body + b"\r\n\t " * 25_000)


@way("stream as something that only some engines take for yes")
def odd_stream(fortress: Fortress) -> None:
    values = (b"1", b'"true"', b"1.0", b"[1]", b"{}", b'"false"', b"0")
    rejected(fortress, *(b'{"model": "embed", "stream": ' + value + b"}" for value in values))


@way("stream written otherwise, which engines in Go read")
def other_stream(fortress: Fortress) -> None:
    members = ("Stream", "STREAM", "\\u017ftream", "ſtream", "Stream_Options", "stream_optionſ")
    rejected(fortress, *(f'{{"model": "embed", "{member}": true}}'.encode() for member in members))


@way("an adapter named to the engine, by the name of a route")
def adapter_of_a_route(fortress: Fortress) -> None:
    """What one may use by the route is its models, not their adapters; nothing is written over there."""
    for member, value in (("lora", [{"id": 0, "scale": 1.0}]), ("lora", []), ("lora_path", "law"), ("lora_path", None)):
        answer = fortress.ask("sk-alice", body={"model": "either", "input": "x", member: value}, target=EMBED_PATH)
        refused(answer, 400)
    body = b'{"model": "either", "lo\\u0072a": [{"id": 0, "scale": 1}]}'
    refused(fortress.ask("sk-alice", body=body, target=EMBED_PATH), 400)


@way("options of Ollama twice, which it lays on top of each other")
def options_twice(fortress: Fortress) -> None:
    for options in (
        b'"options": {"num_ctx": 9}, "options": {}',
        b'"options": {"num_ctx": 9}, "opt\\u0069ons": {}',
        b'"options": {"num_ctx": 9}, "options": {"num_ctx": null}',
        b'"option\xc5\xbf": {"num_ctx": 9}',
    ):
        answer = fortress.ask("sk-alice", body=b'{"model": "llama", ' + options + b"}", target="/api/chat")
        assert (answer.status, list(answer.json)) == (400, ["error"])


@way("JSON nested just deep enough to be let in")
def just_deep_enough(fortress: Fortress) -> None:
    """What looks for the model's place in it does not go as deep as what has read it."""
    for depth in (1005, 1020):
        body = b'{"x": ' + b"[" * depth + b"]" * depth + b', "model": "either"}'
        refused(fortress.ask("sk-alice", body=body, target=EMBED_PATH), 400)


@way("more to add than a header holds")
def too_much_to_add(fortress: Fortress) -> None:
    for options in ({"x": "y" * 20_000}, {"x": "\u00e4" * 5_000}, {"x" * 17_000: 1}):
        body = {"model": "qwen", "stream": True, "stream_options": options}
        refused(fortress.ask("sk-alice", body=body, target=CHAT_PATH), 400)
