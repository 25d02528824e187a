from __future__ import annotations

from datetime import timedelta

from stoker.errors import Stalled, Waiting
from stoker.status.conditions import Cause, Verdict, build_conditions, cause_of


def by_type(conditions) -> dict:
    return {condition.type: condition for condition in conditions}


def test_ready_is_always_there_and_the_others_only_while_true(now) -> None:
    fine = build_conditions([], Verdict(True, "Serving", "ok"), generation=3, now=now)
    assert [(c.type, c.status, c.reason, c.observed_generation) for c in fine] == [("Ready", "True", "Serving", 3)]
    waiting = build_conditions([], Verdict(False, "A", "b", Cause("A", "b")), generation=3, now=now)
    assert [(c.type, c.status) for c in waiting] == [("Ready", "False"), ("Reconciling", "True")]
    stalled = build_conditions([], Verdict(False, "A", "b", Cause("A", "b", stalled=True)), generation=3, now=now)
    assert [(c.type, c.status) for c in stalled] == [("Ready", "False"), ("Stalled", "True")]


def test_the_time_changes_with_the_status_only(now) -> None:
    first = build_conditions([], Verdict(False, "A", "one"), generation=1, now=now)
    later = now + timedelta(minutes=5)
    second = build_conditions(first, Verdict(False, "B", "two"), generation=2, now=later)
    assert by_type(second)["Ready"].last_transition_time == now
    third = build_conditions(second, Verdict(True, "C", "three"), generation=2, now=later)
    assert by_type(third)["Ready"].last_transition_time == later


def test_the_same_verdict_later_gives_equal_conditions_so_nothing_is_written(now) -> None:
    verdict = Verdict(False, "A", "b", Cause("A", "b"), (("Programmed", True, "P", "q"),))
    first = build_conditions([], verdict, generation=1, now=now)
    assert build_conditions(first, verdict, generation=1, now=now + timedelta(hours=1)) == first


def test_endless_words_are_cut(now) -> None:
    (ready,) = build_conditions([], Verdict(False, "A", "x" * 5000), generation=1, now=now)
    assert len(ready.message) == 1024
    assert ready.message.endswith("…")


def test_an_error_tells_whether_somebody_has_to_act() -> None:
    assert cause_of(Stalled("A", "b")) == Cause("A", "b", stalled=True)
    assert cause_of(Waiting("A", "b")) == Cause("A", "b", stalled=False)
    assert cause_of(None) is None
