"""Models that are looked at where they are: folders on a volume, files on a volume, and a fake of Hugging Face's hub on loopback."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import pytest

from stoker.errors import Stalled, StokerError, Waiting
from stoker.fetch.cache import fetch_model
from stoker.fetch.config import FetchConfig, SourceFile
from stoker.fetch.huggingface import FIRST_LOOK, MAX_SHARDS, read_folder, read_repository
from stoker.fetch.lock import CacheLock
from stoker.fetch.progress import ProgressReport
from stoker.models.facts import BadModelError
from stoker.models.fit import FitRequest

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
ROOMY = FitRequest("VLLM", slots=4, devices=1, available_bytes=80 << 30)


def safetensors(elements: int = 64, names: int = 1) -> bytes:
    tensors = {
        f"layer.{number}": {
            "dtype": "BF16",
            "shape": [elements],
            "data_offsets": [2 * elements * number, 2 * elements * (number + 1)],
        }
        for number in range(names)
    }
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def files(**more: bytes) -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(),
        "tokenizer_config.json": json.dumps({"chat_template": "{% if tools %}"}).encode(),
        "README.md": b"---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: other\n",
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(content: dict[str, bytes]) -> Path:
        place = tmp_path / "model"
        place.mkdir(exist_ok=True)
        for name, body in content.items():
            (place / name).write_bytes(body)
        return place

    return make


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """One attempt of the whole downloader; what it tells the operator."""

    def look(kind: str, place: str, **more: Any) -> dict[str, Any]:
        config = FetchConfig(
            "0123456789abcdef", more.pop("files", ()), tmp_path / "cache", tmp_path / "progress.json", look=kind, place=place,
            **{"fit": ROOMY, **more},
        )  # fmt: skip
        try:
            fetch_model(config, ProgressReport(config.progress_file), CacheLock(config.lock_file, settle=0))
        finally:
            told = json.loads(config.progress_file.read_text()) if config.progress_file.exists() else {}
        return dict(told)

    return look


def test_a_folder_is_described(folder: Callable[..., Path], look: Callable[..., dict[str, Any]]) -> None:
    model = look("Folder", str(folder(files())))["model"]
    assert (model["format"], model["architecture"], model["parameters"]) == ("Safetensors", "llama", 64)
    assert (model["weightsBytes"], model["contextLength"], model["license"]) == (128, 131072, "apache-2.0")
    assert (model["chatTemplate"], model["tools"]) == (True, True)
    assert model["kvCache"] == [{"layers": 32, "keyWidth": 1024, "valueWidth": 1024, "window": 0}]


def test_a_folder_that_does_not_fit_stops_the_pod(
    folder: Callable[..., Path], look: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(Stalled, match="DoesNotFit"):
        look("Folder", str(folder(files())), fit=FitRequest("VLLM", 4, 131072, devices=1, available_bytes=8 << 30))


def test_a_chat_template_may_lie_in_a_file_of_its_own_or_have_several_names(folder: Callable[..., Path]) -> None:
    several = {"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "{{ tools }}"}]}
    named = read_folder(folder(files(**{"tokenizer_config.json": json.dumps(several).encode()})))
    assert named is not None
    assert named.tools
    own = read_folder(folder(files(**{"chat_template.jinja": b"{{ messages }}"})))
    assert own is not None
    assert (own.chat_template, own.tools) == (True, False)


@pytest.mark.parametrize(
    "content",
    [
        {"other.bin": b"x"},
        {"config.json": b'{"_class_name": "FluxPipeline"}'},
        {"config.json": json.dumps(CONFIG).encode()},
    ],
)
def test_another_layout_is_the_engines_to_understand(folder: Callable[..., Path], content: dict[str, bytes]) -> None:
    assert read_folder(folder(content)) is None


@pytest.mark.parametrize(
    "spoiled",
    [{"config.json": b"<html>"}, {"model.safetensors": b"\xff" * 64}, {"model.safetensors": safetensors()[:20]}],
)
def test_a_spoiled_folder_is_refused(
    folder: Callable[..., Path], look: Callable[..., dict[str, Any]], spoiled: Any
) -> None:
    place = folder(files(**spoiled))
    with pytest.raises(BadModelError):
        read_folder(place)
    with pytest.raises(Stalled, match="InvalidModel"):
        look("Folder", str(place))
    assert look("Folder", str(place), fit_policy="Ignore") == {}


def test_gguf_files_on_a_volume_are_described(folder: Callable[..., Path], look: Callable[..., dict[str, Any]]) -> None:
    place = folder({"m.gguf": gguf_files.model()})
    assert look("Files", str(place), files=(SourceFile("m.gguf", ""),))["model"]["layers"] == 4


@pytest.mark.parametrize(("missing", "reason"), [("a.gguf", "FileNotFound"), ("b.gguf", "ShardNotFound")])
def test_a_file_that_is_missing_on_a_volume_is_waited_for(
    folder: Callable[..., Path], look: Callable[..., dict[str, Any]], missing: str, reason: str
) -> None:
    place = folder({name: gguf_files.model() for name in ("a.gguf", "b.gguf") if name != missing})
    with pytest.raises(Waiting) as caught:
        look("Files", str(place), files=(SourceFile("a.gguf", ""), SourceFile("b.gguf", "")))
    assert caught.value.reason == reason
    assert str(place / missing) in caught.value.message


def test_an_engine_that_must_be_told_its_context_waits_for_the_choice(
    folder: Callable[..., Path], look: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    place = folder({"m.gguf": gguf_files.model()})
    with pytest.raises(Waiting, match="ChoosingContext"):
        look("Files", str(place), files=(SourceFile("m.gguf", ""),), hold=True)
    assert json.loads((tmp_path / "progress.json").read_text())["model"]["layers"] == 4


def repository(source: Any, **more: Any) -> FetchConfig:
    return FetchConfig(
        "0123456789abcdef", (), look="Repository", place="org/model", hub=f"http://127.0.0.1:{source.port}", **more
    )


def test_of_a_repository_only_a_few_pages_are_asked_for(fake_source: Any) -> None:
    fake_source.files = files()
    found = read_repository(repository(fake_source, token="t", revision="v1"))
    assert found is not None
    assert (found.weights_bytes, found.tools, found.license) == (128, True, "apache-2.0")
    assert all(request.path.startswith("/org/model/resolve/v1/") for request in fake_source.seen)
    assert all(request.headers["authorization"] == "Bearer t" for request in fake_source.seen)
    assert fake_source.body_bytes < 4096


def test_a_long_header_takes_a_second_question_and_no_more(fake_source: Any) -> None:
    long = safetensors(names=4000)
    assert len(long) > FIRST_LOOK
    fake_source.files = files(**{"model.safetensors": long + bytes(1 << 20)})
    found = read_repository(repository(fake_source))
    assert found is not None
    assert found.weights_bytes == 4000 * 128
    asked = [request.headers["range"] for request in fake_source.gets if request.path.endswith("/model.safetensors")]
    assert asked == [f"bytes=0-{FIRST_LOOK - 1}", f"bytes=0-{len(long) - 1}"]


def test_a_model_of_several_files_is_summed_and_of_many_the_index_is_believed(fake_source: Any) -> None:
    def index(count: int, **metadata: Any) -> bytes:
        places = {f"layer.{number}": f"model-{number:05d}.safetensors" for number in range(count)}
        return json.dumps({"metadata": metadata, "weight_map": places}).encode()

    shards = {f"model-{number:05d}.safetensors": safetensors() for number in range(3)}
    fake_source.files = files(**{"model.safetensors.index.json": index(3)}, **shards)
    found = read_repository(repository(fake_source))
    assert found is not None
    assert (found.weights_bytes, found.files) == (3 * 128, 3)
    many = index(MAX_SHARDS + 1, total_size=1_342_000_000_000, total_parameters=671_000_000_000)
    fake_source.files = files(**{"model.safetensors.index.json": many})
    huge = read_repository(repository(fake_source))
    assert huge is not None
    assert (huge.weights_bytes, huge.parameters, huge.files) == (1_342_000_000_000, 671_000_000_000, MAX_SHARDS + 1)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "GatedRepo", "SourceGated"),
        (401, "", "SourceUnauthorized"),
        (404, "RepoNotFound", "SourceNotFound"),
        (404, "RevisionNotFound", "SourceNotFound"),
    ],
)
def test_what_the_engine_would_be_refused_is_told_before_it_starts(
    fake_source: Any, status: int, code: str, reason: str
) -> None:
    fake_source.answer(status=status, headers={"X-Error-Code": code} if code else {})
    with pytest.raises(StokerError) as caught:
        read_repository(repository(fake_source, token="t"))
    assert caught.value.reason == reason


def test_without_a_token_the_engine_may_have_one_of_its_own(fake_source: Any) -> None:
    fake_source.answer(status=401)
    assert read_repository(repository(fake_source)) is None


def test_what_may_not_be_read_is_left_to_the_engine(
    look: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, folder: Callable[..., Path]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    place = folder({"m.gguf": gguf_files.model()})
    monkeypatch.setattr(Path, "is_file", refuse)
    assert "model" not in look("Files", str(place), files=(SourceFile("m.gguf", ""),))


def test_a_hub_that_cannot_be_reached_or_is_ill_stops_nothing(fake_source: Any) -> None:
    assert read_repository(FetchConfig("0" * 16, (), look="Repository", place="o/m", hub="http://127.0.0.1:1")) is None
    fake_source.answer(status=503)
    assert read_repository(repository(fake_source)) is None
    assert read_repository(repository(fake_source)) is None  # no config.json
