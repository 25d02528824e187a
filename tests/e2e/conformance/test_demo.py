"""Client libraries and programs, unchanged, against the whole cluster: the gateway's pods and llama.cpp with a very small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import objects
from e2e.client import Service
from e2e.conformance.checks.world import World
from e2e.conformance.clients import run_checks
from e2e.conformance.programs import run_continue, run_opencode
from e2e.kube import Kube, until

CLIENTS = ("openai", "anthropic", "langchain", "llama_index", "litellm", "instructor")
LONG_CONTEXT = 8192
NOT_HERE = {"audio_upload", "transcription", "tool_call", "streamed_tool_call", "tool_use", "tools", "json"}
"""There is no model for audio, and the small one calls no tools."""


@pytest.fixture(scope="module")
def world(kube: Kube, service: Service) -> Iterator[World]:
    """Beside the shared model one for embeddings, and one with all the context it has for the programs' long prompts."""
    embedding = objects.model(service.namespace, "embed", task="Embedding", args=["--pooling", "mean"])
    long = objects.model(service.namespace, "smollm2-long", contextLength=LONG_CONTEXT, maxConcurrentRequests=1)
    kube.apply(embedding, long)
    kube.wait_ready("modeldeployment/embed", "modeldeployment/smollm2-long", namespace=service.namespace)
    world = World(f"http://127.0.0.1:{service.gateway.port}", service.gateway.key, service.model, False, "embed")
    until(lambda: b'"smollm2-long"' in service.gateway.request("GET", "/v1/models").body, "the gateway lists it", within=5)  # fmt: skip
    yield world
    for name in ("embed", "smollm2-long"):
        kube.delete("modeldeployments", service.namespace, name)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_library_gets_what_it_asks_for(
    client: str, clients_python: Path, world: World, tmp_path: Path
) -> None:
    outcomes = run_checks(clients_python, client, world, tmp_path)
    assert len(outcomes) >= 4
    lacking = {name for name, problem in outcomes.items() if problem == "skipped"}
    assert lacking <= NOT_HERE
    assert {name: problem for name, problem in outcomes.items() if problem and name not in lacking} == {}


def test_opencode_gets_an_answer(programs: Path, world: World, tmp_path: Path) -> None:
    """Without its pages of instructions and tools, which take more context than the model has."""
    long = World(world.url, world.key, "smollm2-long", False)
    done = run_opencode(programs, long, tmp_path, "Say hello.", context=LONG_CONTEXT, lean=True)
    assert done.returncode == 0, done
    assert done.stdout.strip()


def test_the_continue_program_gets_an_answer(programs: Path, world: World, tmp_path: Path) -> None:
    done = run_continue(programs, World(world.url, world.key, "smollm2-long", False), tmp_path, "Say hello.")
    assert done.returncode == 0, done
    assert done.stdout.strip()
