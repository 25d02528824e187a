"""Every example is what the models take."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stoker.api import API_VERSION, KIND_BY_NAME, InferenceEngine, ModelDeployment, Resource

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


def load(path: Path) -> list[Resource]:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert all(document["apiVersion"] == API_VERSION for document in documents)
    return [KIND_BY_NAME[document["kind"]].model_validate(document) for document in documents]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_the_example_is_understood_and_says_what_it_shows(path: Path) -> None:
    assert load(path)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda folder: folder.name)
def test_every_engine_that_a_model_names_is_in_the_same_folder(folder: Path) -> None:
    resources = [resource for path in folder.glob("*.yaml") for resource in load(path)]
    engines = {resource.metadata.name for resource in resources if isinstance(resource, InferenceEngine)}
    models = [resource for resource in resources if isinstance(resource, ModelDeployment)]
    named = {model.spec.engine_ref.name for model in models if model.spec.engine_ref}
    assert named <= engines


def test_the_quickstart_is_an_engine_a_model_and_a_gateway() -> None:
    kinds = [load(EXAMPLES / "quickstart" / f"{name}.yaml")[0].info.kind for name in ("engine", "model", "gateway")]
    assert kinds == ["InferenceEngine", "ModelDeployment", "ApiGateway"]
