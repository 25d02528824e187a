"""The exact children of every example, so that a change of what Stoker makes is a readable diff.

After a change that is meant: ``pytest tests/golden --update-golden``, and read ``git diff tests/golden``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker.api import KIND_BY_NAME, ApiGateway, ApiKey, InferenceEngine, ModelDeployment, Resource
from stoker.api.api_gateway import base_url
from stoker.api.resolved import OperatorSettings, ResolvedApiGateway, ResolvedModelDeployment
from stoker.desired import api_gateway, inference_engine, model_deployment, usage_pod, web_ui
from stoker.desired.api_key import KEY_BYTES, build_key, build_secret
from stoker.desired.choice import choose_engine
from stoker.desired.publishing import published_models, publishes

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
SETTINGS = OperatorSettings(stoker_image="ghcr.io/stoker-dev/stoker:golden")


def example_folders() -> list[str]:
    """Folders with objects, by their path: examples/engines has one for each engine."""
    return sorted({path.parent.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.yaml")})


@pytest.mark.parametrize("example", example_folders())
def test_children_of_an_example_are_exactly_the_golden_ones(example: str, request: pytest.FixtureRequest) -> None:
    golden = HERE / f"{example}.yaml"
    rendered = render(EXAMPLES / example)
    if request.config.getoption("--update-golden", default=False):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert golden.exists(), f"run: pytest tests/golden --update-golden, and commit {golden.name}"
    assert rendered == golden.read_text()


def test_every_golden_file_belongs_to_an_example() -> None:
    golden = {path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.rglob("*.yaml")}
    assert golden == set(example_folders())


def test_rendering_twice_gives_the_same() -> None:
    assert render(EXAMPLES / "quickstart") == render(EXAMPLES / "quickstart")


def render(folder: Path) -> str:
    objects = list(load(folder))
    engines = {o.metadata.name: o for o in objects if isinstance(o, InferenceEngine)}
    models = [o for o in objects if isinstance(o, ModelDeployment)]
    gateways = [o for o in objects if isinstance(o, ApiGateway)]
    keys = [o for o in objects if isinstance(o, ApiKey)]
    children: list[dict[str, Any]] = []
    for engine in engines.values():
        children += inference_engine.build_children(engine, SETTINGS)
    for model in models:
        publishers = tuple(gateway.key for gateway in gateways if publishes(gateway, model, {}))
        resolved = resolve(model, engines, publishers)
        children += model_deployment.build_children(resolved, SETTINGS)
    for gateway in gateways:
        published = tuple(
            replace(model, engine_type=engines[model.deployment.spec.engine_ref.name].spec.type)
            for model in published_models(gateway, models, {})[0]
        )
        of_gateway = tuple(key for key in keys if key.spec.gateway_ref.name == gateway.metadata.name)
        children += api_gateway.build_children(
            ResolvedApiGateway(gateway, published, of_gateway, "golden-token", address=base_url(gateway, None)),
            SETTINGS,
        )
        children += usage_pod.build_usage(gateway, "golden-token", SETTINGS)
        if (ui := gateway.spec.web_ui) is not None:
            children += web_ui.build_kept(gateway, ui, "golden-password", "golden-key", "golden-token-secret")
            children += web_ui.build_children(gateway, ui, SETTINGS, "golden-digest")
    children += [build_secret(key, build_key(bytes(range(KEY_BYTES)))) for key in keys if key.spec.sha256 is None]
    return "".join(f"---\n{yaml.safe_dump(readable(child), sort_keys=False, width=120)}" for child in children)


def resolve(
    model: ModelDeployment, engines: dict[str, InferenceEngine], publishers: tuple[tuple[str, str], ...]
) -> ResolvedModelDeployment:
    if model.spec.engine_ref:
        engine, reason = engines.get(model.spec.engine_ref.name), None
    else:
        engine, reason = choose_engine(model, list(engines.values()), SETTINGS, None)
    return model_deployment.resolve_model_deployment(
        model, engine, SETTINGS, previous=None, publishers=publishers, engine_reason=reason
    )


def load(folder: Path) -> Iterator[Resource]:
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            document["metadata"] = {
                "namespace": "default",
                "uid": f"uid-of-{document['kind']}-{document['metadata']['name']}",
                "generation": 1,
                "creationTimestamp": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
                **document["metadata"],
            }
            yield KIND_BY_NAME[document["kind"]].model_validate(document)


def readable(child: dict[str, Any]) -> dict[str, Any]:
    """Base64 would hide what changed; nothing else differs from what is applied."""
    if child["kind"] != "Secret":
        return child
    return {**child, "data": {name: base64.b64decode(text).decode() for name, text in child["data"].items()}}
