from __future__ import annotations

import pytest
from unit.engines.test_table import base_request

from stoker.api.inference_engine import EngineType
from stoker.engines import ENGINES, check_request
from stoker.engines.versions import Version, parse_version
from stoker.errors import Stalled

VLLM = ("docker.io/vllm/vllm-openai:v0.33.0", "docker.io/vllm/vllm-openai-cpu:v0.33.0-x86_64")
LLAMA = ("ghcr.io/ggml-org/llama.cpp:server-b11434",)


@pytest.mark.parametrize(
    ("image", "known", "version"),
    [
        ("docker.io/vllm/vllm-openai:v0.17.1", VLLM, (0, 17, 1)),
        ("registry.example.com:5000/mirror/vllm-openai:v0.9", VLLM, (0, 9, 0)),
        ("vllm/vllm-openai-cpu:v0.18.0-x86_64", VLLM, (0, 18, 0)),
        ("vllm/vllm-openai:v0.18.0@sha256:" + "0" * 64, VLLM, (0, 18, 0)),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b9000", LLAMA, (9000,)),
        ("vllm/vllm-openai:latest", VLLM, None),
        ("vllm/vllm-openai:nightly-0123abcd", VLLM, None),
        ("vllm/vllm-openai", VLLM, None),
        ("vllm/vllm-openai@sha256:" + "0" * 64, VLLM, None),
        ("registry.example.com/team/my-vllm:0.1", VLLM, None),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda", LLAMA, None),
    ],
)
def test_a_version_is_read_where_the_tag_tells_it(image: str, known: tuple[str, ...], version: Version | None) -> None:
    assert parse_version(image, known) == version


@pytest.mark.parametrize(
    ("kind", "old", "new", "lacks"),
    [
        ("VLLM", "vllm/vllm-openai:v0.17.1", "vllm/vllm-openai:v0.18.0", "--shutdown-timeout"),
        (
            "LlamaCpp",
            "ghcr.io/x/llama.cpp:server-cuda-b9477",
            "ghcr.io/x/llama.cpp:server-cuda-b9478",
            "--sse-ping-interval",
        ),
        ("LocalAI", "localai/localai:v3.1.1", "localai/localai:v3.2.0-gpu-nvidia-cuda-12", "backends that are fetched"),
        ("Aphrodite", "mirror/aphrodite-openai:v0.10.0", "mirror/aphrodite-openai:v0.20.0", "--shutdown-timeout"),
        ("Ollama", "ollama/ollama:0.5.12", "ollama/ollama:0.5.13-rocm", "OLLAMA_CONTEXT_LENGTH"),
    ],
)
def test_an_image_that_is_too_old_is_refused_by_name(kind: EngineType, old: str, new: str, lacks: str) -> None:
    engine = ENGINES[kind]
    with pytest.raises(Stalled, match=f"ImageTooOld: {old} .*does not know {lacks}"):
        check_request(engine, base_request(engine, image=old, own_image=True))
    check_request(engine, base_request(engine, image=new, own_image=True))
    check_request(engine, base_request(engine, image="registry/mine:0.0.1", own_image=True))


def test_no_default_image_is_too_old() -> None:
    for engine in ENGINES.values():
        for image in engine.images.values():
            check_request(engine, base_request(engine, image=image.name))
