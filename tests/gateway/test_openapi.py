"""The published OpenAPI document, held against a real gateway by schemathesis; behind it a fake engine that takes anything."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import schemathesis.generation
import schemathesis.specs
from aiohttp import web
from gateway.conftest import World, first_config
from gateway.fake_engine import FakeEngine
from gateway.pod import NAMESPACE
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from stoker.gateway.endpoints import ENDPOINTS
from stoker.gateway.openapi import build_document

# Some of its modules are imported on first use, deep within hypothesis, and pytest compiles a plugin's modules by way of their syntax
# tree: when the garbage collector runs meanwhile, Python 3.11 may fail with "AST constructor recursion depth mismatch". So all come now.
for package in (schemathesis.generation, schemathesis.specs):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

DOCUMENT = build_document()
# Not QUERY: Envoy has an opinion of its own about that one (400 without a content type, as its RFC asks).
METHODS = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]
CONFIG = SchemathesisConfig.from_dict({"phases": {"coverage": {"unexpected-methods": METHODS}}})
schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
EXAMPLES = 12


class PatientEngine(FakeEngine):
    """Answers whatever comes with the same JSON."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"object": "anything"})


@schema.hook
def map_body(context: Any, body: Any) -> Any:
    """A third of the bodies name a model that is there: otherwise all would end at 404."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 3 == 0:
        return {**body, "model": "everything"}
    return body


@schema.auth()
class Alice:
    """Known to schemathesis as what lets it in, so that it also tries without, and with another one."""

    def get(self, case: schemathesis.Case, context: Any) -> str:
        return "Bearer sk-alice"

    def set(self, case: schemathesis.Case, data: str, context: Any) -> None:
        case.headers["authorization"] = data


@pytest.fixture(scope="module")
def address(session_world: World) -> Iterator[str]:
    engine = PatientEngine()
    config = first_config().model("everything", paths=list(ENDPOINTS))
    session_world.kubernetes.put_endpoints(NAMESPACE, "everything", [engine.port])
    session_world.apply(config)
    yield f"http://127.0.0.1:{session_world.pod.port}"
    session_world.kubernetes.put_endpoints(NAMESPACE, "everything", [])
    session_world.apply(first_config())
    engine.close()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_gateway_does_what_its_document_says(case: schemathesis.Case, address: str) -> None:
    case.call_and_validate(base_url=address, timeout=20)


def test_every_check_of_schemathesis_is_in_use() -> None:
    assert {"not_a_server_error", "status_code_conformance", "response_schema_conformance", "ignored_auth", "unsupported_method", "negative_data_rejection"} <= set(CHECKS.get_all_names())  # fmt: skip


def test_the_document_is_served_to_callers_with_a_key_and_lies_in_the_reference(world: World) -> None:
    served = world.pod.request("GET", "/openapi.json")
    assert (served.status, served.json) == (200, DOCUMENT)
    assert world.pod.request("GET", "/openapi.json", key=None).status == 401
    assert world.pod.request("POST", "/openapi.json", {}).error["code"] == "method_not_allowed"
    page = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
    assert json.loads(page.read_text()) == DOCUMENT
