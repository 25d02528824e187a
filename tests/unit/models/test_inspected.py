from __future__ import annotations

import dataclasses
import json

import pytest
from pydantic import ValidationError

from stoker.api.inspection import KvCacheStatus, ModelStatus
from stoker.models.facts import KvLayers, ModelFacts, group_layers
from stoker.models.inspected import facts_of


def test_status_has_the_very_fields_that_the_downloader_writes() -> None:
    written = [field.name for field in dataclasses.fields(ModelFacts)]
    assert [name for name in ModelStatus.model_fields if name != "source"] == written
    assert list(KvCacheStatus.model_fields) == [field.name for field in dataclasses.fields(KvLayers)]


def test_facts_survive_the_way_through_progress_and_status() -> None:
    values = {field.name: 7 for field in dataclasses.fields(ModelFacts) if field.type == "int"}
    facts = ModelFacts(
        "GGUF", "llama", **values, tools=True, name="a", kv_cache=(KvLayers(3, 1, 2), KvLayers(4, 1, 2, 512))
    )  # type: ignore[arg-type]
    status = ModelStatus.model_validate(json.loads(json.dumps({"source": "abc", **facts.to_json()})))
    assert status.source == "abc"
    assert facts_of(status) == facts
    assert facts_of(ModelStatus.model_validate(status.model_dump(mode="json", by_alias=True))) == facts


@pytest.mark.parametrize("said", [{"layers": -1}, {"layers": 2**60}, {"name": "x" * 200}, {"kvCache": [{}] * 17}])
def test_what_a_pod_could_not_have_read_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelStatus.model_validate(said)


def test_layers_of_many_kinds_are_counted_as_the_widest() -> None:
    groups = group_layers(KvLayers(1, width, 2 * width) for width in range(1, 100))
    assert groups == (KvLayers(99, 99, 198),)
