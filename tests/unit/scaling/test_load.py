from __future__ import annotations

from stoker.scaling.load import compute_load
from stoker.scaling.observed import EngineLoad, GatewayLoad, Sample
from stoker.scaling.state import Level, Memory


def sample(time: float, *gateways: tuple[int, int, int] | None, engines: tuple[EngineLoad | None, ...] = ()) -> Sample:
    names = {f"gateway-{i}": None if load is None else GatewayLoad(*load) for i, load in enumerate(gateways)}
    return Sample(time, names, {f"pod-{i}": load for i, load in enumerate(engines)})


def test_totals_are_counted_gateway_by_gateway() -> None:
    _, memory = compute_load(sample(0, (0, 100, 90), (0, 7, 7)), 1, Memory())
    load, _ = compute_load(sample(2, (1, 103, 95), (2, 9, 8)), 1, memory)
    assert (load.arrivals, load.completions, load.held, load.seconds) == (5, 6, 3, 2)


def test_a_first_sample_counts_nothing() -> None:
    load, _ = compute_load(sample(0, (0, 1_000_000, 999_999)), 1, Memory())
    assert (load.arrivals, load.completions, load.seconds) == (0, 0, 0)


def test_a_gateway_that_was_silent_is_counted_from_where_it_was() -> None:
    _, memory = compute_load(sample(0, (0, 100, 90)), 1, Memory())
    load, memory = compute_load(sample(2, None), 1, memory)
    assert (load.arrivals, load.silent) == (0, 1)
    load, _ = compute_load(sample(4, (0, 110, 99)), 1, memory)
    assert (load.arrivals, load.completions, load.silent) == (10, 9, 0)


def test_a_gateway_that_started_anew_counts_from_zero() -> None:
    _, memory = compute_load(sample(0, (0, 100, 90)), 1, Memory())
    load, _ = compute_load(sample(2, (0, 4, 3)), 1, memory)
    assert (load.arrivals, load.completions) == (4, 3)


def test_a_gateway_that_left_is_forgotten() -> None:
    _, memory = compute_load(sample(0, (0, 100, 90), (0, 50, 50)), 1, Memory())
    _, memory = compute_load(sample(2, (0, 101, 90)), 1, memory)
    assert list(memory.counters) == ["gateway-0"]


def test_silent_replicas_are_taken_to_be_as_busy_as_the_others() -> None:
    load, _ = compute_load(sample(0, (0, 0, 0), engines=(EngineLoad(4, 1), EngineLoad(6, 1), None, None)), 4, Memory())
    assert (load.running, load.waiting, load.ready, load.silent) == (20, 4, 4, 2)


def test_full_means_that_the_gateway_holds_or_that_engines_queue() -> None:
    idle, busy = EngineLoad(4, 0), EngineLoad(4, 2)
    assert not compute_load(sample(0, (0, 0, 0), engines=(idle, busy)), 2, Memory())[0].saturated
    assert compute_load(sample(0, (0, 0, 0), engines=(busy, busy)), 2, Memory())[0].saturated
    assert compute_load(sample(0, (1, 0, 0), engines=(idle, idle)), 2, Memory())[0].saturated
    assert not compute_load(sample(0, (1, 0, 0)), 2, Memory())[0].saturated, "nothing is ready, so nothing is full"


def test_one_full_sample_does_not_end_the_calm() -> None:
    calm, full = (EngineLoad(1, 0),), (EngineLoad(4, 2),)
    memory = Memory()
    for time, engines in enumerate((calm, calm, full, calm)):
        _, memory = compute_load(sample(time, (0, 0, 0), engines=engines), 1, memory)
    assert (memory.calm_since, memory.saturated_since) == (0, None)
    for time, engines in enumerate((full, full), 4):
        _, memory = compute_load(sample(time, (0, 0, 0), engines=engines), 1, memory)
    assert (memory.calm_since, memory.saturated_since) == (None, 4)


def test_a_pause_counts_as_no_time() -> None:
    _, memory = compute_load(sample(100, (0, 10, 10)), 2, Memory())
    memory = Memory(time=100, levels=(Level(90.0, (7,)), Level(40.0)), counters=memory.counters, queues=(3.0,))
    load, memory = compute_load(sample(1100, (0, 500, 500)), 2, memory)
    assert (load.seconds, load.arrivals, memory.queues) == (0, 0, ())
    assert memory.levels == (Level(1090.0, (7,)), Level(1040.0))
