from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stoker.errors import Stalled
from stoker.fetch.config import CONFIG_VARIABLE, TOKEN_VARIABLE, parse_config

FILE = {"name": "m.gguf", "url": "https://example.com/m.gguf"}


def environment(token: str = "", **fields: Any) -> dict[str, str]:
    return {
        CONFIG_VARIABLE: json.dumps({"digest": "0123456789abcdef", "files": [FILE]} | fields),
        TOKEN_VARIABLE: token,
    }


def test_a_minimal_configuration_has_the_mounts_of_the_pod_as_defaults() -> None:
    config = parse_config(environment())
    assert config.folder == Path("/models/0123456789abcdef")
    assert config.partial == Path("/models/.partial-0123456789abcdef")


def test_the_line_end_of_a_secret_is_no_part_of_the_token() -> None:
    assert parse_config(environment(token="hf_abc\n")).token == "hf_abc"


def test_a_token_that_would_split_a_header_is_refused() -> None:
    with pytest.raises(Stalled, match="InvalidToken"):
        parse_config(environment(token="a\r\nX-Evil: 1"))


@pytest.mark.parametrize(
    "fields",
    [
        {"digest": "../../etc"},
        {"files": []},
        {"files": [FILE | {"name": "../m.gguf"}]},
        {"files": [FILE | {"name": ".."}]},
        {"files": [FILE | {"name": ".stoker-state.json"}]},
        {"files": [FILE | {"url": "ftp://example.com/m.gguf"}]},
        {"files": [FILE | {"sha256": "abc"}]},
        {"files": [FILE, FILE]},
        {"files": "m.gguf"},
    ],
)
def test_what_could_leave_the_cache_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Stalled, match="InvalidConfiguration"):
        parse_config(environment(**fields))


def test_no_configuration_at_all_is_said_to_be_missing() -> None:
    with pytest.raises(Stalled, match=CONFIG_VARIABLE):
        parse_config({})
