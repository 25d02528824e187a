"""The page says what was measured, also where a target is missed or a peer is not there."""

from __future__ import annotations

from bench.gateway.report import BARE, DIRECT, LITELLM, OURS, ROUTER, Measured, added_ms, build_lines, build_page
from bench.gateway.runs import Numbers


def measured(*, request_us: float = 50.0) -> Measured:
    def numbers(us: float, first_byte: float) -> Numbers:
        return Numbers([us, us], [us / 4] * 2, [1e6 / us] * 2, [first_byte] * 2, [[0.2, 1.0]] * 2, 60, 80)

    gateways = {
        OURS: numbers(request_us, 1.2),
        BARE: numbers(25, 0.7),
        ROUTER: numbers(45, 0.6),
        LITELLM: numbers(7000, 9),
        DIRECT: Numbers([], [], [80_000, 80_000], [0.2, 0.2], [[0.1, 0.2]]),
    }
    return Measured(2, gateways, [0.1, 0.3], [0.02, 0.7])


def test_each_target_has_a_line_with_its_verdict() -> None:
    lines = {line.what: line for line in build_lines(measured())}
    assert len(lines) == 10
    assert lines["CPU of a request : bare Envoy"].measured == "2.00 (2.00–2.00)"
    assert lines["CPU of a request : bare Envoy"].verdict == "yes"
    assert lines["CPU of a chunk : bare Envoy"].verdict == "**no**"
    assert lines["LiteLLM : Stoker, CPU of a request"].measured.startswith("140 ")
    assert lines["key revoked → refused"].measured == "0.30 s"
    assert lines["endpoint ready → used"].met is False


def test_ratios_are_taken_within_a_round() -> None:
    run = measured()
    run.gateways[OURS].request_us = [20.0, 200.0]
    run.gateways[BARE].request_us = [10.0, 100.0]
    assert build_lines(run)[0].measured == "2.00 (2.00–2.00)"


def test_a_peer_that_is_not_there_is_not_measured_and_the_page_says_why() -> None:
    run = measured()
    for name in (ROUTER, LITELLM):
        del run.gateways[name]
    run.skipped.append("sglang-router 0.3.2 cannot be installed here (no wheel)")
    assert [line.met for line in build_lines(run)[2:6]] == [None] * 4
    page = build_page(run, 1001, 10)
    assert "Not measured: sglang-router 0.3.2 cannot be installed here (no wheel)" in page
    assert "| not measured |" in page


def test_the_page_has_a_row_for_each_gateway_and_no_absolute_cost() -> None:
    page = build_page(measured(), 1001, 10)
    assert "| **Stoker** | 2.00 (2.00–2.00) |" in page
    assert "| sglang-router 0.3.2 |" in page
    assert "| LiteLLM 1.106.2 | 280 (280–280) |" in page
    assert "µs" not in page
    assert "{" not in page.replace("gateway.{md,png}", "")


def test_what_a_gateway_adds_is_taken_against_the_engine_itself() -> None:
    assert round(added_ms(measured(), OURS), 3) == 1.0
