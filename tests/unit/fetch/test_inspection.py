from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gguf_files
import pytest

from stoker.errors import Stalled
from stoker.fetch.cache import fetch_model
from stoker.fetch.config import FetchConfig
from stoker.fetch.lock import CacheLock
from stoker.fetch.progress import ProgressReport
from stoker.models.fit import FitRequest
from stoker.models.gguf import MAX_HEADER

ORDER = FitRequest("LlamaCpp", slots=4, context_length=4096, available_bytes=1 << 30)
BIG = gguf_files.model(tokens=20_000) + bytes(4 << 20)


@pytest.fixture
def attempt(make_config: Callable[..., FetchConfig], fake_source: Any) -> Callable[..., dict[str, Any]]:
    fake_source.files["model.gguf"] = BIG

    def attempt(order: FitRequest | None = ORDER, policy: str = "Enforce") -> dict[str, Any]:
        config = replace(make_config(sha256=None), fit=order, fit_policy=policy)
        try:
            fetch_model(config, ProgressReport(config.progress_file), CacheLock(config.lock_file, settle=0))
        finally:
            progress = json.loads(config.progress_file.read_text()) if config.progress_file.exists() else {}
        assert (config.folder / "model.gguf").read_bytes() == fake_source.files["model.gguf"]
        return dict(progress)

    return attempt


def test_the_model_is_described_while_it_is_fetched(attempt: Callable[..., dict[str, Any]], fake_source: Any) -> None:
    model = attempt()["model"]
    assert (model["architecture"], model["contextLength"], model["vocabularySize"]) == ("llama", 4096, 20_000)
    assert model["kvCache"] == [{"layers": 4, "keyWidth": 64, "valueWidth": 64, "window": 0}]
    assert [request.headers.get("range") for request in fake_source.gets] == [f"bytes=0-{MAX_HEADER - 1}", None]


def test_weights_that_are_there_are_described_without_the_source(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    attempt(None)
    asked = len(fake_source.seen)
    assert attempt()["model"]["architecture"] == "llama"
    assert len(fake_source.seen) == asked


def test_a_model_that_does_not_fit_is_not_fetched(attempt: Callable[..., dict[str, Any]], fake_source: Any) -> None:
    with pytest.raises(Stalled, match=r"DoesNotFit: model\.gguf does not fit: it needs .* and there are 0\.01 GiB"):
        attempt(replace(ORDER, available_bytes=10 << 20))
    assert len(fake_source.gets) == 1


def test_what_is_known_of_a_model_that_does_not_fit_is_told(
    make_config: Callable[..., FetchConfig], fake_source: Any
) -> None:
    fake_source.files["model.gguf"] = BIG
    config = replace(make_config(sha256=None), fit=replace(ORDER, available_bytes=1))
    with pytest.raises(Stalled):
        fetch_model(config, ProgressReport(config.progress_file), CacheLock(config.lock_file, settle=0))
    assert json.loads(config.progress_file.read_text())["model"]["layers"] == 4


def test_cached_weights_that_do_not_fit_do_not_reach_the_engine(attempt: Callable[..., dict[str, Any]]) -> None:
    attempt()
    with pytest.raises(Stalled, match="DoesNotFit"):
        attempt(replace(ORDER, available_bytes=1))


@pytest.mark.parametrize("policy", ["Warn", "Ignore"])
def test_a_misfit_is_fetched_where_that_is_wanted(attempt: Callable[..., dict[str, Any]], policy: str) -> None:
    assert attempt(replace(ORDER, available_bytes=1), policy)["model"]["layers"] == 4


def test_a_broken_header_is_refused_before_the_weights_are_fetched(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    fake_source.files["model.gguf"] = BIG[:4] + b"\x63" + BIG[5:]
    with pytest.raises(Stalled, match=r"InvalidModel: .*its GGUF version is 99"):
        attempt()
    assert len(fake_source.gets) == 1
    assert "model" not in attempt(policy="Ignore")


def test_a_file_that_was_cut_off_at_the_source_is_refused(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    whole = gguf_files.model()
    fake_source.files["model.gguf"] = whole[:-64]
    with pytest.raises(Stalled, match=rf"speaks of {len(whole)} bytes, but it has {len(whole) - 64}"):
        attempt()


def test_a_web_page_is_left_to_the_download_to_explain(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    fake_source.files["model.gguf"] = b"<!doctype html><html>sign in</html>"
    with pytest.raises(Stalled, match="NotGGUF"):
        attempt()


def test_a_source_that_does_not_answer_the_first_question_is_looked_at_afterwards(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    fake_source.answer(status=503)
    assert attempt()["model"]["layers"] == 4


def test_a_source_that_sends_less_than_the_header_is_looked_at_afterwards(
    attempt: Callable[..., dict[str, Any]], fake_source: Any
) -> None:
    fake_source.answer(range_cap=100)
    assert attempt()["model"]["layers"] == 4
