from __future__ import annotations

from stoker.portal_token import portal_token


def test_the_portal_s_token_is_another_for_each_gateway_and_not_the_gateway_s() -> None:
    made = {portal_token("a"), portal_token("b")}
    assert len(made) == 2
    assert not made & {"a", "b"}
    assert all(len(token) == 64 for token in made)


def test_without_a_gateway_s_token_there_is_none_that_everybody_could_compute() -> None:
    assert portal_token("") == ""
