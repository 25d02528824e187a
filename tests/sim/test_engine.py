"""The engine model against what is published for it."""

from __future__ import annotations

import pytest
from sim.engine import Engine, Replica
from sim.traces import Trace


def run(requests: list[tuple[int, int]], engine: Engine | None = None) -> tuple[dict[int, float], dict[int, float]]:
    """All at once on one replica; first tokens and ends."""
    trace = Trace([0.0] * len(requests), [prompt for prompt, _ in requests], [output for _, output in requests])
    replica = Replica(0, 0.0, engine or Engine(), trace)
    for request in range(len(requests)):
        replica.queue.append(request)
        replica.outstanding += 1
    replica.admit()
    first: dict[int, float] = {}
    ended: dict[int, float] = {}
    while replica.outstanding:
        replica.advance(replica.next_event())
        request, at, done = replica.step()
        if request >= 0:
            first[request] = at
        ended |= dict.fromkeys(done, replica.time)
    return first, ended


def test_one_stream_is_as_fast_as_published() -> None:
    first, ended = run([(100, 751)])
    assert 750 / (ended[0] - first[0]) == pytest.approx(75, rel=0.05)


def test_eight_streams_share_a_replica_and_are_faster_together() -> None:
    _, ended = run([(1024, 128)] * 8)
    assert 380 < 8 * 128 / max(ended.values()) < 500


def test_prompts_are_read_one_after_the_other() -> None:
    first, _ = run([(12_000, 2)] * 3)
    assert [round(first[request]) for request in range(3)] == [1, 2, 3]


def test_what_does_not_fit_the_cache_waits_for_room() -> None:
    small = Engine(cache_tokens=1000)
    first, ended = run([(400, 200), (400, 200)], small)
    assert first[1] > ended[0]
    assert first[1] - ended[0] < 0.1


def test_no_more_sequences_run_than_allowed() -> None:
    first, ended = run([(10, 100)] * 4, Engine(max_sequences=2))
    assert min(first[2], first[3]) > min(ended[0], ended[1])


def test_a_request_larger_than_the_cache_is_served_alone() -> None:
    _, ended = run([(5000, 10)], Engine(cache_tokens=1000))
    assert ended[0] > 0
