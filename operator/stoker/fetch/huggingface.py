"""What a model in Hugging Face's layout says about itself: in a folder, or in a repository, of which only a few pages are asked for.

A repository is read as an engine would read it, with the same token. What cannot be asked for (no network, another layout) is
the engine's to find out: then nothing is known, and nothing is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from stoker.fetch.config import FetchConfig
from stoker.fetch.source import explain_status, open_client
from stoker.models.facts import BadModelError, ModelFacts, shown_text
from stoker.models.hf_config import MAX_CONFIG, facts_of, parse_config
from stoker.models.safetensors import MAX_HEADER, SafetensorsHeader, bytes_needed, parse_header, read_json

Read = Callable[[str, int], bytes | None]
"""The beginning of a file of the model, at most so long; None where there is no such file."""

FIRST_LOOK = 256 << 10
"""Most headers end in here, so that one request is enough."""
MAX_TEXT = 16 << 20
MAX_SHARDS = 16
"""Headers of more files are not read one by one: their index tells the sum."""
CARD = 8 << 10

log = structlog.get_logger("fetch")
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


def read_folder(folder: Path) -> ModelFacts | None:
    """A model's folder; None where it is in another layout."""

    def read(name: str, most: int) -> bytes | None:
        path = folder / name
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return stream.read(most)

    return _read_model(read, lambda: sorted(path.name for path in folder.glob("*.safetensors")))


def read_repository(config: FetchConfig) -> ModelFacts | None:
    """A repository on the hub; raises what the hub says where the engine would be refused, too."""
    address = f"{config.hub}/{config.place}/resolve/{quote(config.revision, safe='')}"
    with open_client() as client:
        read = _hub_reader(client, address, config.token)
        try:
            return _read_model(read, lambda: ["model.safetensors"])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("the repository cannot be looked at", repository=config.place, error=str(error))
            return None


def _hub_reader(client: httpx.Client, address: str, token: str) -> Read:
    def read(name: str, most: int) -> bytes | None:
        headers = {"Range": f"bytes=0-{most - 1}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{address}/{quote(name)}"
        with client.stream("GET", url, headers=headers) as response:
            code = response.headers.get("X-Error-Code", "")
            if response.status_code == 404 and code not in ("RepoNotFound", "RevisionNotFound"):
                return None
            if response.status_code in (401, 403) and not token:
                # The engine may have a token by a way of its own.
                return None
            if response.status_code in (401, 403, 404):
                raise explain_status(response, url, has_token=bool(token))
            if response.status_code not in (200, 206):
                # Also 416, for an empty file.
                return None
            found = bytearray()
            for piece in response.iter_raw(64 << 10):
                found += piece
                if len(found) >= most:
                    break
            return bytes(found[:most])

    return read


def _read_model(read: Read, list_files: Callable[[], list[str]]) -> ModelFacts | None:
    text = read("config.json", MAX_CONFIG + 1)
    if text is None:
        return None
    config = parse_config(text)
    if "model_type" not in config:
        # Of another library: a diffusion pipeline, a voice.
        return None
    try:
        return _describe(read, list_files, config)
    except OddConfigError as error:
        # Configurations are as many as architectures: what is odd to us may be plain to the engine.
        log.warning("the model cannot be described", error=str(error))
        return None


class OddConfigError(Exception):
    """The files are sound, but what their configuration means is not known."""


def _facts(config: dict[str, Any], headers: list[SafetensorsHeader], template: str) -> ModelFacts:
    try:
        return facts_of(config, headers, template)
    except BadModelError as error:
        raise OddConfigError(str(error)) from error


def _describe(read: Read, list_files: Callable[[], list[str]], config: dict[str, Any]) -> ModelFacts | None:
    index = _json(read("model.safetensors.index.json", MAX_TEXT))
    names = _shards(index) or list_files()
    if len(names) > MAX_SHARDS:
        facts = _facts(config, [_told_by_index(index, config)], _chat_template(read))
        parameters = index.get("metadata", {}).get("total_parameters")
        if isinstance(parameters, int) and 0 <= parameters < 1 << 53:
            facts = replace(facts, parameters=parameters)
        facts = replace(facts, files=len(names))
    else:
        headers = [header for name in names if (header := _header(read, name)) is not None]
        facts = _facts(config, headers, _chat_template(read))
    return replace(facts, license=_license(read)) if facts.weights_bytes else None


def _shards(index: dict[str, Any]) -> list[str]:
    places = index.get("weight_map")
    if not isinstance(places, dict):
        return []
    names = {name for name in places.values() if isinstance(name, str)}
    return sorted(name for name in names if "/" not in name and name.endswith(".safetensors"))


def _told_by_index(index: dict[str, Any], config: dict[str, Any]) -> SafetensorsHeader:
    metadata = index.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if type(size) is not int or not 0 < size < 1 << 53:
        raise OddConfigError("the index of its files does not tell their size")
    kind = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}.get(str(config.get("torch_dtype")), "BF16")
    return SafetensorsHeader(bytes_by_type={kind: size})


def _header(read: Read, name: str) -> SafetensorsHeader | None:
    beginning = read(name, FIRST_LOOK)
    if beginning is None:
        return None
    needed = bytes_needed(beginning)
    if needed > len(beginning):
        beginning = read(name, min(needed, MAX_HEADER + 8)) or b""
    if len(beginning) < needed:
        raise BadModelError(f"{shown_text(name)} ends before its header does")
    return parse_header(beginning)


def _chat_template(read: Read) -> str:
    text = read("chat_template.jinja", MAX_CONFIG)
    if text is not None:
        return text.decode("utf-8", "replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = _json(read(name, MAX_TEXT)).get("chat_template")
        if isinstance(found, str):
            return found
        if isinstance(found, list):
            # Several under names: the one for tools is used when a request has some.
            return "\n".join(
                entry["template"]
                for entry in found
                if isinstance(entry, dict) and isinstance(entry.get("template"), str)
            )
    return ""


def _license(read: Read) -> str:
    card = (read("README.md", CARD) or b"").decode("utf-8", "replace")
    head = card.partition("---\n")[2].partition("\n---")[0] if card.startswith("---") else ""
    found = _LICENSE.search(head)
    return shown_text(found[1]) if found else ""


def _json(text: bytes | None) -> dict[str, Any]:
    """What is not there, or not to be understood, is empty: nothing of it is needed."""
    if not text:
        return {}
    try:
        return read_json(text, 100_000)
    except BadModelError:
        return {}
