"""A strict mock engine: it knows the fields that OpenAI and Anthropic document, and answers 400 to whatever else it gets.

Deterministic: it repeats the last thing the user said. `CALLTOOL name {json}` in that makes it call the tool; where a tool must be
called, or an answer must follow a schema, it makes something up that fits. What a gateway must keep from an engine is a complaint, too.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web
from gateway.fake_kubernetes import ADDRESSES
from gateway.loops import ThreadedServer

Object = dict[str, Any]

_SAMPLING = {"temperature", "top_p", "seed", "stop", "n", "presence_penalty", "frequency_penalty", "logit_bias", "user"}
_STREAM = {"stream", "stream_options"}
KNOWN: dict[str, set[str]] = {
    "/v1/chat/completions": _SAMPLING | _STREAM | {
        "model", "messages", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "response_format",
        "logprobs", "top_logprobs", "metadata", "store", "service_tier", "reasoning_effort", "modalities", "prediction", "verbosity",
        "prompt_cache_key", "safety_identifier",
    },
    "/v1/completions": _SAMPLING | _STREAM | {"model", "prompt", "max_tokens", "suffix", "echo", "best_of", "logprobs"},
    "/v1/embeddings": {"model", "input", "encoding_format", "dimensions", "user"},
    "/v1/responses": {
        "model", "input", "instructions", "stream", "tools", "tool_choice", "parallel_tool_calls", "text", "temperature", "top_p",
        "max_output_tokens", "metadata", "store", "include", "previous_response_id", "reasoning", "truncation", "user", "prompt_cache_key",
        "service_tier", "max_tool_calls", "background", "top_logprobs", "safety_identifier", "stream_options",
    },
    "/v1/messages": {
        "model", "messages", "max_tokens", "system", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice",
        "metadata", "thinking", "service_tier",
    },
    "/v1/messages/count_tokens": {"model", "messages", "system", "tools", "tool_choice", "thinking"},
}  # fmt: skip
NOT_FOR_ENGINES = ("authorization", "x-api-key", "x-gw-", "x-envoy-", "x-openwebui-")


class BadRequest(Exception):
    """What a strict engine would refuse."""


class StrictEngine(ThreadedServer):
    """Serves every path of the OpenAI API that a client library calls; remembers what was wrong."""

    addresses = ("127.0.0.1", *ADDRESSES.values())

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self.served: list[tuple[str, Object]] = []
        self.start()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_post("/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            body = self._check(request, await request.read())
            answer = {
                "/v1/chat/completions": self._chat,
                "/v1/completions": self._completion,
                "/v1/embeddings": self._embeddings,
                "/v1/responses": self._responses,
                "/v1/messages": self._messages,
                "/v1/messages/count_tokens": self._count,
            }[request.path]
            self.served.append((request.path, body))
            return await answer(request, body)
        except BadRequest as bad:
            self.complaints.append(f"{request.path}: {bad}")
            error = {"message": str(bad), "type": "invalid_request_error", "param": None, "code": "strict"}
            return web.json_response({"error": error}, status=400)

    def _check(self, request: web.Request, raw: bytes) -> Object:
        """The body, if everything about the request is documented."""
        for name in request.headers:
            if name.lower().startswith(NOT_FOR_ENGINES):
                raise BadRequest(f"the header {name} reached the engine")
        if request.path not in KNOWN:
            raise BadRequest("no such path")
        if request.content_type != "application/json":
            raise BadRequest(f"content type {request.content_type}")
        body: Object = json.loads(raw)
        if unknown := set(body) - KNOWN[request.path]:
            raise BadRequest(f"unknown fields: {sorted(unknown)}")
        if body.get("stream_options") and not body.get("stream"):
            raise BadRequest("stream_options without stream")
        for message in body.get("messages", []):
            if message.get("role") not in ("system", "developer", "user", "assistant", "tool"):
                raise BadRequest(f"role {message.get('role')}")
        return body

    async def _chat(self, request: web.Request, body: Object) -> web.StreamResponse:
        call = tool_call(body, [tool["function"] for tool in body.get("tools", [])], "parameters")
        text = answer_text(body)
        base = {"id": "chatcmpl-1", "created": 1700000000, "model": body["model"]}
        usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 7 + len(text.split())}
        reason = "tool_calls" if call else "stop"
        if not body.get("stream"):
            message: Object = {"role": "assistant", "content": None if call else text, "refusal": None}
            if call:
                message["tool_calls"] = [as_openai_call(*call)]
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            return web.json_response({**base, "object": "chat.completion", "choices": [choice], "usage": usage})
        deltas: list[Object] = [{"role": "assistant", "content": None if call else ""}]
        if call:
            whole = as_openai_call(*call)
            arguments = whole["function"].pop("arguments")
            half = len(arguments) // 2
            deltas.append({"tool_calls": [{"index": 0, **whole, "function": {**whole["function"], "arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (arguments[:half], arguments[half:])]  # fmt: skip
        else:
            deltas += [{"content": word} for word in words(text)]
        wants_usage = (body.get("stream_options") or {}).get("include_usage")

        async def events() -> AsyncIterator[tuple[str, Object]]:
            last: Object = {"usage": None} if wants_usage else {}
            for delta in deltas:
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                yield "", {**base, "object": "chat.completion.chunk", "choices": [choice], **last}
            choice = {"index": 0, "delta": {}, "finish_reason": reason}
            yield "", {**base, "object": "chat.completion.chunk", "choices": [choice], **last}
            if wants_usage:
                yield "", {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}

        return await stream(request, events(), done=True)

    async def _completion(self, request: web.Request, body: Object) -> web.StreamResponse:
        text = f"PONG {body['model']}: {body['prompt']}"
        base = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": body["model"]}
        if not body.get("stream"):
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            return web.json_response(
                {
                    **base,
                    "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}],
                    "usage": usage,
                }
            )

        async def events() -> AsyncIterator[tuple[str, Object]]:
            for word in words(text):
                yield "", {**base, "choices": [{"index": 0, "text": word, "finish_reason": None}]}
            yield "", {**base, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}

        return await stream(request, events(), done=True)

    async def _embeddings(self, _request: web.Request, body: Object) -> web.StreamResponse:
        """As base64 where that is asked for, which is what OpenAI's own client does."""
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        if not all(isinstance(one, str) for one in inputs):
            raise BadRequest("input of tokens: only strings are understood here")
        values = [0.5, -0.25, 0.125, 1.0]
        packed = base64.b64encode(struct.pack("<4f", *values)).decode()
        vector = packed if body.get("encoding_format") == "base64" else values
        data = [{"object": "embedding", "index": number, "embedding": vector} for number in range(len(inputs))]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def _responses(self, request: web.Request, body: Object) -> web.StreamResponse:
        call = tool_call(body, [tool for tool in body.get("tools", []) if tool.get("type") == "function"], "parameters")
        text = answer_text(body)
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        }
        content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item: Object = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [content],
        }
        if call:
            name, arguments = call
            item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": name, "arguments": json.dumps(arguments), "status": "completed"}  # fmt: skip
        whole: Object = {
            "id": "resp_1", "object": "response", "created_at": 1700000000, "status": "completed", "error": None, "incomplete_details": None,
            "instructions": None, "metadata": {}, "model": body["model"], "output": [item], "parallel_tool_calls": True, "temperature": 1.0,
            "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            return web.json_response(whole)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        place = {"item_id": item["id"], "output_index": 0}

        async def events() -> AsyncIterator[tuple[str, Object]]:
            yield "response.created", {"response": begun}
            yield "response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}  # fmt: skip
            if not call:
                part = {**place, "content_index": 0}
                yield "response.content_part.added", {**part, "part": {**content, "text": ""}}
                for word in words(text):
                    yield "response.output_text.delta", {**part, "delta": word, "logprobs": []}
                yield "response.output_text.done", {**part, "text": text, "logprobs": []}
                yield "response.content_part.done", {**part, "part": content}
            yield "response.output_item.done", {"output_index": 0, "item": item}
            yield "response.completed", {"response": whole}

        return await stream(request, numbered(events()))

    async def _messages(self, request: web.Request, body: Object) -> web.StreamResponse:
        """Anthropic's shape."""
        if "max_tokens" not in body:
            raise BadRequest("max_tokens is required")
        call = tool_call(body, body.get("tools", []), "input_schema")
        text = answer_text(body)
        block: Object = {"type": "text", "text": text}
        if call:
            block = {"type": "tool_use", "id": "toolu_1", "name": call[0], "input": call[1]}
        reason = "tool_use" if call else "end_turn"
        whole: Object = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [block], "stop_reason": reason,
            "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 3},
        }  # fmt: skip
        if not body.get("stream"):
            return web.json_response(whole)

        async def events() -> AsyncIterator[tuple[str, Object]]:
            begun = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 0}}
            yield "message_start", {"message": begun}
            empty = {**block, "input": {}} if call else {"type": "text", "text": ""}
            yield "content_block_start", {"index": 0, "content_block": empty}
            if call:
                yield "content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": json.dumps(call[1])}}  # fmt: skip
            else:
                for word in words(text):
                    yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}
            yield "content_block_stop", {"index": 0}
            yield "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 3}}  # fmt: skip
            yield "message_stop", {}

        return await stream(request, events())

    async def _count(self, _request: web.Request, _body: Object) -> web.StreamResponse:
        return web.json_response({"input_tokens": 7})

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        """A form with a file; says how long the file was."""
        fields = await request.post()
        file = fields.get("file")
        if not isinstance(file, web.FileField) or set(fields) - {"file", "model", "language", "response_format", "temperature", "prompt", "stream"}:  # fmt: skip
            self.complaints.append(f"transcription with fields {sorted(fields)}")
            return web.json_response({"error": {"message": "bad form"}}, status=400)
        self.served.append((request.path, {"model": fields["model"]}))
        return web.json_response({"text": f"PONG {fields['model']}: {len(file.file.read())} bytes"})


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def last_turn(body: Object) -> Object:
    """The last message or input item."""
    turns = body.get("messages", body.get("input"))
    if isinstance(turns, str):
        return {"role": "user", "content": turns}
    last: Object = turns[-1]
    return last


def plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or plain(part.get("content", "")) for part in content or [])


def is_tool_result(turn: Object) -> bool:
    content = turn.get("content")
    return (
        turn.get("role") == "tool"
        or turn.get("type") == "function_call_output"
        or (isinstance(content, list) and any(part.get("type") == "tool_result" for part in content))
    )


def answer_text(body: Object) -> str:
    """An example of the schema that is asked for, what a tool has said, or the user's own words."""
    form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        return json.dumps(example(form.get("schema") or form["json_schema"]["schema"]))
    if form.get("type") == "json_object":
        # The schema is somewhere in the prompt, as instructor writes it.
        found = re.search(
            r"\{.*\}", " ".join(plain(m["content"]) for m in body["messages"] if m["role"] == "system"), re.DOTALL
        )
        return json.dumps(example(json.loads(found.group()))) if found else "{}"
    turn = last_turn(body)
    if is_tool_result(turn):
        return "TOOLRESULT: " + (turn.get("output") or plain(turn["content"]))[-500:]
    return f"PONG {body['model']}: {plain(turn['content'])[-200:]}"


def tool_call(body: Object, tools: Iterable[Object], schema_field: str) -> tuple[str, Object] | None:
    """Name and arguments of the tool that is asked for in words or must be called."""
    turn = last_turn(body)
    by_name = {tool["name"]: tool for tool in tools}
    if is_tool_result(turn) or not by_name:
        return None
    # Some clients put the prompt in quotes.
    asked = re.search(r"CALLTOOL (\w+) (\{.*\})", plain(turn["content"]).replace('\\"', '"'), re.DOTALL)
    if asked and asked.group(1) in by_name:
        return asked.group(1), json.loads(asked.group(2))
    choice = body.get("tool_choice") or "auto"
    if choice in ("auto", "none") or (isinstance(choice, dict) and choice.get("type") in ("auto", "none")):
        return None
    named = choice.get("name") or choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    name = named or next(iter(by_name))
    return name, example(by_name[name][schema_field])


def as_openai_call(name: str, arguments: Object) -> Object:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def example(schema: Object, definitions: Object | None = None) -> Any:
    """Something that the schema allows."""
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], definitions)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: example(inner, definitions) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema["items"], definitions)]
    return {"integer": 7, "number": 0.5, "boolean": True, "null": None}.get(str(kind), "text")


async def numbered(events: AsyncIterator[tuple[str, Object]]) -> AsyncIterator[tuple[str, Object]]:
    number = 0
    async for name, event in events:
        yield name, {**event, "sequence_number": number}
        number += 1


async def stream(
    request: web.Request, events: AsyncIterator[tuple[str, Object]], *, done: bool = False
) -> web.StreamResponse:
    """Server-sent events, each written on its own; those with a name say it in their type, too."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    async for name, event in events:
        head = f"event: {name}\n" if name else ""
        await response.write(f"{head}data: {json.dumps({'type': name, **event} if name else event)}\n\n".encode())
    if done:
        await response.write(b"data: [DONE]\n\n")
    return response
