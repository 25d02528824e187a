from __future__ import annotations

from datetime import date

import pytest

from stoker.cluster.load import GatewayAnswer, GatewayReading
from stoker.portal.charts import HEIGHT, WIDTH, draw_days, draw_hour, round_up
from stoker.portal.config import PortalModel
from stoker.portal.load import HOUR_SECONDS, LoadHistory, Moment
from stoker.portal.rendering import short_number
from stoker.portal.usage import Used

NOW = 100_000.0
QWEN = PortalModel(name="qwen3", cluster="team-a/qwen3", ready_replicas=2)


def answer(running: int, waiting: int, model: str = "team-a/qwen3") -> GatewayAnswer:
    return GatewayAnswer({model: GatewayReading(waiting, running, 0, 0, {})})


def test_every_day_has_its_bar_and_the_largest_stays_within_the_plot() -> None:
    rows = [Used(day="2026-03-01", prompt=300, completion=100), Used(day="2026-03-03", prompt=1000, completion=1000)]
    chart = draw_days(rows, date(2026, 3, 1), date(2026, 3, 4))
    assert [bar.day.day for bar in chart.bars] == [1, 2, 3, 4]
    assert chart.top == 2000
    assert [bar.used.tokens for bar in chart.bars] == [400, 0, 2000, 0]
    full = chart.bars[2]
    assert (full.answer_y, full.prompt_y, full.prompt_height) == (0, HEIGHT / 2, HEIGHT / 2)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in chart.bars)


def test_nothing_used_is_a_plot_of_nothing() -> None:
    assert draw_days([], date(2026, 3, 1), date(2026, 3, 1)).top == 1


@pytest.mark.parametrize(
    ("number", "edge"), [(0, 1), (1, 1), (3, 3), (5, 6), (9, 10), (11, 20), (2001, 3000), (99_999, 100_000)]
)
def test_the_edge_of_a_plot_is_a_number_that_people_like(number: int, edge: int) -> None:
    assert round_up(number) == edge


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1260, "1.2k"), (34_500, "34k"), (999_999, "999k"), (5_600_000, "5.6M")],
)
def test_numbers_are_short(number: int, words: str) -> None:
    assert short_number(number) == words


def test_replicas_are_drawn_in_steps() -> None:
    lines = draw_hour([Moment(NOW - 1800, 1, 0, 0), Moment(NOW - 900, 2, 0, 0), Moment(NOW, 2, 0, 0)], NOW)
    assert lines is not None
    assert lines.replicas == "300.0,50.0 450.0,50.0 450.0,2.0 600.0,2.0"
    assert lines.replicas_words == "2 ready now; between 1 and 2 over the last hour"


def test_what_is_not_known_is_a_gap_and_not_zero() -> None:
    moments = [Moment(NOW - 40, 1, 4, 1), Moment(NOW - 30, 1, None, None), Moment(NOW - 20, 1, 2, 0)]
    lines = draw_hour(moments, NOW)
    assert lines is not None
    assert len(lines.running) == 2
    assert lines.most_requests == 4
    assert lines.requests_words == "2 running and 0 waiting now; at most 4 and 1 over the last hour"


def test_one_moment_is_no_line() -> None:
    assert draw_hour([Moment(NOW, 1, 0, 0)], NOW) is None


def test_the_load_is_that_of_all_gateway_pods_together() -> None:
    history = LoadHistory()
    history.note([QWEN], [answer(3, 1), answer(2, 0), answer(9, 9, "team-a/other")], NOW)
    assert history.of("qwen3", NOW) == [Moment(NOW, 2, 5, 1)]


def test_a_gateway_pod_that_does_not_answer_makes_the_load_unknown() -> None:
    history = LoadHistory()
    history.note([QWEN], [answer(3, 1), None], NOW)
    history.note([QWEN], [], NOW + 1)
    assert [(moment.running, moment.ready) for moment in history.of("qwen3", NOW + 1)] == [(None, 2), (None, 2)]


def test_a_model_that_nobody_asks_for_has_no_load_and_one_that_is_gone_is_forgotten() -> None:
    history = LoadHistory()
    history.note([QWEN], [GatewayAnswer({})], NOW)
    assert history.of("qwen3", NOW) == [Moment(NOW, 2, 0, 0)]
    history.note([], [GatewayAnswer({})], NOW + 1)
    assert history.of("qwen3", NOW + 1) == []


def test_an_hour_without_replicas_and_requests_is_not_worth_a_plot() -> None:
    def drawn(*moments: Moment) -> bool:
        lines = draw_hour(moments, NOW)
        assert lines
        return not lines.nothing

    asleep = [Moment(NOW - 30, 0, 0, 0), Moment(NOW - 15, 0, 0, 0)]
    assert not drawn(*asleep)
    for moment in (Moment(NOW, 1, 0, 0), Moment(NOW, 0, 1, 0), Moment(NOW, 0, 0, 1), Moment(NOW, 0, None, None)):
        assert drawn(*asleep, moment)


def test_an_hour_is_kept() -> None:
    history = LoadHistory()
    for number in range(HOUR_SECONDS // 15 + 50):
        history.note([QWEN], [GatewayAnswer({})], NOW + 15 * number)
    now = NOW + 15 * (HOUR_SECONDS // 15 + 49)
    assert len(history.of("qwen3", now)) == HOUR_SECONDS // 15
    assert history.of("qwen3", now + 2 * HOUR_SECONDS) == []
