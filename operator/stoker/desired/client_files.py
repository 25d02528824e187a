"""Settings of client programs for a gateway's models, ready to be copied: most programs do not ask for the list of models.

Formats: https://opencode.ai/docs/config/, https://docs.continue.dev/reference
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from stoker.api.api_gateway import ApiGateway
from stoker.api.names import client_files_name
from stoker.api.resolved import PublishedModel
from stoker.api.routes import NamedRoute
from stoker.desired.gateway_pod import COMPONENT
from stoker.desired.objects import Object, child

KEY_VARIABLE = "STOKER_API_KEY"
"""Environment variable from which all these programs take the key: no file holds one."""

# Engines that read tool calls by the model's own template; the others need spec.toolCallParser.
_READS_TOOLS_BY_TEMPLATE = frozenset({"LlamaCpp", "LMStudio", "LocalAI", "Ollama", "TextGenerationWebUI"})
# More than any answer of a program that writes code; what is left of the context is the prompt's.
_LONGEST_ANSWER = 8192
# With a thousand models Python's own writer, which indents slowly, was a third of a gateway's pass.
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True)
class ClientModel:
    """What a program has to know of a model."""

    name: str
    title: str
    task: str
    context: int
    """Tokens of one request, prompt and answer together; 0 where nobody knows."""
    answer: int
    """Tokens of an answer at most; 0 where nobody knows."""
    tools: bool
    parameters: int


def build_client_files(gateway: ApiGateway, models: Sequence[PublishedModel], address: str) -> Object:
    """One ConfigMap with a file for each program."""
    data = write_files(gateway.metadata.name, offered(gateway, models), address)
    return child(gateway, COMPONENT, "v1", "ConfigMap", client_files_name(gateway.metadata.name), data=data)


def write_files(gateway: str, models: Sequence[ClientModel], address: str) -> dict[str, str]:
    """The files by their names; the portal shows them, too, with the models that somebody may use."""
    return {
        "opencode.json": orjson.dumps(_opencode(gateway, models, address), option=_PRETTY).decode(),
        "continue.yaml": "".join(f"{line}\n" for line in _continue(gateway, models, address)),
        "python.py": _python(models, address),
        "langchain.py": _langchain(models, address),
        "curl.sh": _curl(models, address),
    }


def describe(gateway: ApiGateway, model: PublishedModel) -> ClientModel:
    """From what was computed, what was asked for, and what the model's own files say, in this order."""
    longest = gateway.spec.limits.max_tokens_per_request or 0
    spec, status = model.deployment.spec, model.deployment.status
    context = (status.fit.context_length if status.fit else 0) or spec.context_length or 0
    if not context and status.model is not None:
        context = status.model.context_length
    answer = min(context // 2, _LONGEST_ANSWER)
    return ClientModel(
        name=model.deployment.served_name,
        title=(status.model.name if status.model else "") or model.deployment.served_name,
        task=spec.task,
        context=context,
        answer=min(answer, longest) if longest else answer,
        tools=_calls_tools(model),
        parameters=status.model.parameters if status.model else 0,
    )


def offered(gateway: ApiGateway, models: Sequence[PublishedModel]) -> list[ClientModel]:
    """Whatever programs may ask for: routes, and models. A route that bears the name of a model stands in its place, as at the gateway."""
    routes = [found for route in gateway.spec.routes if (found := describe_route(gateway, route, models)) is not None]
    names = {route.name for route in routes}
    return [*routes, *(described for model in models if (described := describe(gateway, model)).name not in names)]


def describe_route(gateway: ApiGateway, route: NamedRoute, models: Sequence[PublishedModel]) -> ClientModel | None:
    """What any model behind it can take, for nobody knows which one a request gets; None where there is none.

    Of what is outside nothing is known, and nothing is promised.
    """
    by_weight, fallbacks = ([describe(gateway, model) for model in found] for found in behind(route, models))
    ours = [*by_weight, *fallbacks]
    if not ours and not any(fallback.external for fallback in route.fallbacks):
        return None
    contexts = [model.context for model in ours if model.context]
    answers = [model.answer for model in ours if model.answer]
    own = next((model for model in ours if model.name == route.name), None)
    return ClientModel(
        name=route.name,
        title=own.title if own else route.name,
        # As the gateway lists it.
        task=ours[0].task if ours else "Chat",
        context=min(contexts, default=0),
        answer=min(answers, default=0),
        tools=bool(ours) and all(model.tools for model in by_weight or ours),
        # Neither the largest nor the smallest, where there are models beside it.
        parameters=own.parameters if own else 0,
    )


def behind(route: NamedRoute, models: Sequence[PublishedModel]) -> tuple[list[PublishedModel], list[PublishedModel]]:
    """Models of a route that can answer: those with a weight, and those to fall back on. What is stopped or not published is left out."""
    by_name = {name: model for model in reversed(models) for name in model.deployment.served_names if not model.stopped}
    weighted = [by_name[entry.model] for entry in route.models if entry.model in by_name]
    return weighted, [by_name[entry.model] for entry in route.fallbacks if entry.model and entry.model in by_name]


def _calls_tools(model: PublishedModel) -> bool:
    spec, seen = model.deployment.spec, model.deployment.status.model
    if spec.task != "Chat":
        return False
    if model.engine_type in _READS_TOOLS_BY_TEMPLATE:
        # A template that the user gives is his; without any word of the model's own, let the program try.
        return seen is None or seen.tools or spec.chat_template is not None
    return spec.tool_call_parser is not None


def _chat(models: Iterable[ClientModel]) -> list[ClientModel]:
    """The one to work with first: it calls tools, and is the largest."""
    found = [model for model in models if model.task == "Chat"]
    return sorted(found, key=lambda model: (not model.tools, -model.parameters, model.name))


def _opencode(gateway: str, models: Sequence[ClientModel], address: str) -> Object:
    chat = _chat(models)
    config: Object = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": [gateway],
        "provider": {
            gateway: {
                "npm": "@ai-sdk/openai-compatible",
                "name": f"Stoker gateway {gateway}",
                "options": {"baseURL": address, "apiKey": f"{{env:{KEY_VARIABLE}}}"},
                "models": {model.name: _opencode_model(model) for model in chat},
            }
        },
    }
    if chat:
        config["model"] = f"{gateway}/{chat[0].name}"
        # It makes titles.
        config["small_model"] = f"{gateway}/{_smallest(chat).name}"
    return config


def _smallest(chat: list[ClientModel]) -> ClientModel:
    """Of those whose size is known, if there are any."""
    return min(chat, key=lambda model: (not model.parameters, model.parameters, model.name))


def _opencode_model(model: ClientModel) -> Object:
    known: Object = {"name": model.title, "tool_call": model.tools}
    if model.context:
        known["limit"] = {"context": model.context, "output": model.answer}
    return known


def _continue(gateway: str, models: Sequence[ClientModel], address: str) -> Iterator[str]:
    """YAML by hand, every text in JSON's quotes, which are YAML's, too."""
    yield f"name: {json.dumps(f'Stoker gateway {gateway}')}"
    yield 'version: "1.0.0"'
    yield "schema: v1"
    roles = {"Chat": "[chat, edit, apply, summarize]", "Completion": "[autocomplete]", "Embedding": "[embed]"}
    offered = [*_chat(models), *(model for model in models if model.task in ("Completion", "Embedding"))]
    yield "models:" if offered else "models: []"
    for model in offered:
        yield f"  - name: {json.dumps(model.title)}"
        yield "    provider: openai"
        yield f"    model: {json.dumps(model.name)}"
        yield f"    apiBase: {json.dumps(address)}"
        yield f"    apiKey: ${{{{ secrets.{KEY_VARIABLE} }}}}"
        yield f"    roles: {roles[model.task]}"
        if model.tools:
            yield "    capabilities: [tool_use]"
        if model.context:
            yield "    defaultCompletionOptions:"
            yield f"      contextLength: {model.context}"
            yield f"      maxTokens: {model.answer}"


def _python(models: Sequence[ClientModel], address: str) -> str:
    chat = _chat(models)
    name = chat[0].name if chat else "MODEL"
    return (
        "# pip install openai\n"
        "import os\n\n"
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={json.dumps(address)}, api_key=os.environ[{json.dumps(KEY_VARIABLE)}])\n"
        "stream = client.chat.completions.create(\n"
        f"    model={json.dumps(name)},\n"
        '    messages=[{"role": "user", "content": "Hello!"}],\n'
        "    stream=True,\n"
        ")\n"
        "for chunk in stream:\n"
        "    for choice in chunk.choices:\n"
        '        print(choice.delta.content or "", end="", flush=True)\n'
        "print()\n"
    )


def _langchain(models: Sequence[ClientModel], address: str) -> str:
    chat = _chat(models)
    name = chat[0].name if chat else "MODEL"
    return (
        "# pip install langchain-openai\n"
        "import os\n\n"
        "from langchain_openai import ChatOpenAI\n\n"
        "llm = ChatOpenAI(\n"
        f"    model={json.dumps(name)},\n"
        f"    base_url={json.dumps(address)},\n"
        f"    api_key=os.environ[{json.dumps(KEY_VARIABLE)}],\n"
        "    stream_usage=True,\n"
        ")\n"
        'for piece in llm.stream("Hello!"):\n'
        '    print(piece.content, end="", flush=True)\n'
        "print()\n"
    )


def _curl(models: Sequence[ClientModel], address: str) -> str:
    chat = _chat(models)
    body = {
        "model": chat[0].name if chat else "MODEL",
        "stream": True,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
    return (
        "#!/bin/sh\n"
        f'curl --no-buffer --fail-with-body "{address}/chat/completions" \\\n'
        f'  --header "Authorization: Bearer ${KEY_VARIABLE}" --header "Content-Type: application/json" \\\n'
        f"  --data '{json.dumps(body)}'\n"
    )
