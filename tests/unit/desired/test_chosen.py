from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.api.names import REFRESH_ANNOTATION, RESOLVED_ANNOTATION
from stoker.api.resolved import OperatorSettings
from stoker.desired.chosen import choose, describe_update, engine_image, read_chosen, write_chosen
from stoker.errors import Stalled
from stoker.models.source import parse_source


def chosen_for(model, engine, settings: OperatorSettings, previous=None):
    return choose(model, engine, parse_source(model.spec.source), settings, previous)


def test_what_is_written_is_read_back(make_model, make_engine, settings) -> None:
    chosen = chosen_for(make_model(contextLength=4096), make_engine(), settings)
    assert read_chosen({"metadata": {"annotations": {RESOLVED_ANNOTATION: write_chosen(chosen)}}}) == chosen


@pytest.mark.parametrize(
    "deployment", [None, {}, {"metadata": {}}, {"metadata": {"annotations": None}},
                   {"metadata": {"annotations": {RESOLVED_ANNOTATION: "{"}}}, {"metadata": {"annotations": {RESOLVED_ANNOTATION: "{}"}}}],
)  # fmt: skip
def test_what_is_not_there_or_not_understood_was_not_chosen(deployment) -> None:
    assert read_chosen(deployment) is None


def test_an_operator_upgrade_changes_nothing_that_was_chosen(make_model, make_engine, settings) -> None:
    first = chosen_for(make_model(), make_engine(), settings)
    upgraded = replace(settings, stoker_image="stoker:2")
    assert chosen_for(make_model(), make_engine(), upgraded, first) is first
    update = describe_update(first, make_model(), make_engine(), parse_source(make_model().spec.source), upgraded)
    assert update == "agent and downloader image: stoker:1 → stoker:2"


def test_nothing_is_told_when_nothing_would_change(make_model, make_engine, settings) -> None:
    first = chosen_for(make_model(), make_engine(), settings)
    assert describe_update(first, make_model(), make_engine(), parse_source(make_model().spec.source), settings) is None


@pytest.mark.parametrize(
    ("model_change", "engine_change"),
    [
        ({"contextLength": 2048}, {}),
        ({}, {"args": ["--threads", "1"]}),
        ({}, {"metadata": {"uid": "made-anew"}}),
        ({"metadata": {"annotations": {REFRESH_ANNOTATION: "now"}}}, {}),
    ],
)
def test_a_change_of_model_or_engine_or_a_request_chooses_anew(
    make_model, make_engine, settings, model_change, engine_change
) -> None:
    first = chosen_for(make_model(), make_engine(), settings)
    upgraded = replace(settings, stoker_image="stoker:2")
    again = chosen_for(make_model(**model_change), make_engine(**engine_change), upgraded, first)
    assert again.stoker_image == "stoker:2"
    assert chosen_for(make_model(**model_change), make_engine(**engine_change), settings, again) is again


@pytest.mark.parametrize("change", [{"replicas": 3}, {"gateways": {"from": "All"}}, {"metadata": {"generation": 9}}])
def test_scaling_after_an_operator_upgrade_restarts_no_engine(make_model, make_engine, settings, change) -> None:
    first = chosen_for(make_model(), make_engine(), settings)
    upgraded = replace(settings, stoker_image="stoker:2")
    assert chosen_for(make_model(**change), make_engine(), upgraded, first) is first


def test_the_engines_own_image_and_deadline_win(make_model, make_engine, settings) -> None:
    engine = make_engine(image="registry/mine:1", startupDeadlineSeconds=42)
    chosen = chosen_for(make_model(), engine, settings)
    assert (chosen.engine_image, chosen.startup_deadline_seconds) == ("registry/mine:1", 42)
    assert chosen_for(make_model(), make_engine(), settings).startup_deadline_seconds == 600


def test_an_engine_that_fetches_for_itself_has_time_for_it(make_model, make_engine, settings) -> None:
    model = make_model(source={"uri": "hf://org/model"})
    assert chosen_for(model, make_engine(type="VLLM"), settings).startup_deadline_seconds == 3600


def test_an_accelerator_without_an_image_is_refused(make_engine, monkeypatch) -> None:
    from stoker.desired import chosen
    from stoker.engines import ENGINES

    without = {"LlamaCpp": replace(ENGINES["LlamaCpp"], images={})}
    monkeypatch.setattr(chosen, "ENGINES", without)
    with pytest.raises(Stalled) as caught:
        engine_image(make_engine())
    assert caught.value.reason == "ImageNotAvailable"
    assert "set spec.image of InferenceEngine llama" in caught.value.message
