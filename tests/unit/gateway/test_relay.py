from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.gateway import openai_errors as errors
from stoker.gateway.decide import relayed
from stoker.gateway.decision import Decision
from stoker.gateway.publish import Publisher
from stoker.gateway.relay import Answers
from stoker.gateway.settings import Settings
from stoker.gateway.state import StateReader
from stoker.gateway.table import Table
from stoker.gateway.web import WebRequest, WebResponse
from stoker.gateway.wire import render


@pytest.fixture
def answers(table: Table, settings: Settings) -> Answers:
    reader = StateReader(settings.state)
    reader.table = table
    return Answers(reader, Publisher(settings), settings.internal_socket)


async def ask(answers: Answers, **headers: str) -> WebResponse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await answers.handle(WebRequest("GET", "/v1/models", sent))


def content(response: WebResponse) -> Any:
    return json.loads(response.body)


async def test_a_key_sees_its_models_and_aliases(answers: Answers) -> None:
    response = await ask(answers, x_gw_answer="models", x_gw_key="bob")
    assert [model["id"] for model in content(response)["data"]] == ["embed", "gpt-4o"]


async def test_a_key_that_is_gone_by_now_sees_nothing(answers: Answers) -> None:
    assert content(await ask(answers, x_gw_answer="models", x_gw_key="gone"))["data"] == []


async def test_a_model_that_is_gone_by_now_is_not_found(answers: Answers) -> None:
    response = await ask(answers, x_gw_answer="model", x_gw_requested="gone", x_gw_key="alice")
    assert (response.status, content(response)["error"]["code"]) == (404, "model_not_found")


async def test_what_is_stopped_is_a_503_with_retry_after(answers: Answers) -> None:
    response = await ask(answers, x_gw_answer="model_stopped", x_gw_requested="qwen")
    assert (response.status, content(response)["error"]["code"]) == (503, "model_stopped")
    assert "retry-after" in dict(response.headers)


async def test_what_the_policy_wants_said_is_said_word_for_word(answers: Answers) -> None:
    loading = {"phase": "Loading", "progress": 0.5, "etaSeconds": 7}
    wanted = errors.model_loading("qwen", loading, 12.0, 7)
    decision = relayed(Decision("allowed", cluster="team-a/qwen", model="qwen"), wanted)
    (said,) = [line for line in render(decision).decode().split("\r\n") if line.startswith("x-gw-problem: ")]
    response = await ask(answers, x_gw_answer="problem", x_gw_problem=said.removeprefix("x-gw-problem: "))
    assert (response.status, response.body, tuple(response.headers)) == (503, wanted.body, wanted.headers)
    assert content(response)["error"]["loading"] == loading


async def test_a_request_that_nobody_routed_gets_nothing(answers: Answers) -> None:
    response = await ask(answers)
    assert (response.status, content(response)["error"]["code"]) == (404, "unknown_url")


async def test_its_own_numbers_are_for_the_policy_process(answers: Answers) -> None:
    response = await ask(answers, x_gw_answer="metrics")
    assert b"stoker_gateway_published_timestamp_seconds 0.000" in response.body
