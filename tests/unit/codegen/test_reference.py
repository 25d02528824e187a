"""The reference pages."""

from __future__ import annotations

import pytest

from stoker.api import KINDS, ApiGateway, InferenceEngine, ModelDeployment, Resource
from stoker.codegen import reference


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.info.kind)
def test_every_rule_is_on_the_page(kind: type[Resource]) -> None:
    page = reference.build_page(kind)
    for rule in kind.cel_rules:
        assert f"- {rule.message}\n" in page


def test_a_field_shows_type_bounds_and_default() -> None:
    page = reference.build_page(ModelDeployment)
    assert "| `replicas` | integer (0 to 1000) | `1` |" in page
    assert "| `engineRef.name` | string (at most 253 characters) | **required** |" in page
    assert (
        '| `task` | `Chat` / `Completion` / `Embedding` / `Rerank` / `Transcription` / `Speech` / `Image` | `"Chat"` |'
        in page
    )


def test_items_of_lists_and_quantities_are_shown() -> None:
    page = reference.build_page(InferenceEngine)
    assert "| `imagePullSecrets[].name` |" in page
    assert "| `cache.size` | quantity |" in page
    assert "| `status` " not in page


def test_angle_brackets_are_not_taken_for_html() -> None:
    assert "one claim, \\<engine>-cache," in reference.build_page(InferenceEngine)


def test_page_names_are_the_kinds_words() -> None:
    assert reference.page_name(ApiGateway) == "api-gateway"
