"""The fakes of the end-to-end tests refuse what they do not know: they have to know everything that their engines are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.engines.test_table import requests_of

from stoker.engines import ENGINES, Launch

FAKES = Path(__file__).parents[2] / "e2e" / "fake_engines"


@pytest.fixture(scope="module")
def fakes() -> Iterator[tuple[Any, Any]]:
    """Their modules, which stand alone in an image."""
    sys.path.insert(0, str(FAKES))
    try:
        import daemons
        import engines

        yield engines, daemons
    finally:
        sys.path.remove(str(FAKES))
        for name in ("daemons", "engines", "serving"):
            sys.modules.pop(name, None)


def launches(kind: str) -> list[Launch]:
    engine = ENGINES[kind]  # type: ignore[index]
    return [engine.launch(request) for request in requests_of(engine)]


def settings(launch: Launch, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in launch.env if name.startswith(prefix)}


def flags(words: tuple[str, ...]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_the_fake_text_generation_webui_knows_every_flag(fakes: tuple[Any, Any]) -> None:
    for launch in launches("TextGenerationWebUI"):
        scripts = " ".join(text.partition("exec ")[2] for text in launch.files.values())
        assert flags(launch.command) | flags(tuple(scripts.split())) <= fakes[0].FLAGS_OF_TEXTGEN


def test_the_fake_local_ai_knows_every_setting_and_every_field(fakes: tuple[Any, Any]) -> None:
    for launch in launches("LocalAI"):
        assert settings(launch, "LOCALAI_") <= fakes[0].SETTINGS_OF_LOCAL_AI
        (text,) = launch.files.values()
        fields = {line[2:].partition(":")[0] for line in text.splitlines() if line[:1] in "- "}
        assert fields <= fakes[0].MODEL_OF_LOCAL_AI


def test_the_fake_tabby_api_knows_every_field(fakes: tuple[Any, Any]) -> None:
    for launch in launches("TabbyAPI"):
        (text,) = launch.files.values()
        for section, fields in fakes[0].read_sections(text).items():
            assert fields.keys() <= fakes[0].CONFIG_OF_TABBY[section]


def test_the_fake_ollama_knows_every_setting(fakes: tuple[Any, Any]) -> None:
    for launch in launches("Ollama"):
        assert settings(launch, "OLLAMA_") <= fakes[1].SETTINGS_OF_OLLAMA


def test_the_fake_lm_studio_knows_every_flag(fakes: tuple[Any, Any]) -> None:
    for launch in launches("LMStudio"):
        (text,) = launch.files.values()
        (line,) = (line for line in text.splitlines() if line.startswith("lms load "))
        assert flags(tuple(line.split())) <= fakes[1].FLAGS_OF_LMS_LOAD
