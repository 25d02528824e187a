from dataclasses import replace
from pathlib import Path

import pytest
from imagebuild.cli import input_hash, with_bases
from imagebuild.recipes import ROOT, Image, all_images, copied_sources, copy_stoker_sources, stoker_version


def image(key: str) -> Image:
    return next(image for image in all_images() if image.key == key)


def test_bases_come_before_what_is_built_from_them() -> None:
    keys = [image.key for image in all_images()]
    for built in all_images():
        assert built.base in ("", *keys[: keys.index(built.key)])


def test_dockerfiles_start_from_their_base_and_what_that_is_built_from() -> None:
    for built in all_images():
        starts = [line.split()[1] for line in built.dockerfile.read_text().splitlines() if line.startswith("FROM ")]
        names = [other.name for other in with_bases([built], all_images()) if other.key != built.key] or ["scratch"]
        assert names[-1].endswith(starts[0]), built.key
        assert all(any(name.endswith(start) for name in names) for start in starts), built.key


def test_asking_for_an_image_builds_what_it_stands_on() -> None:
    assert [built.key for built in with_bases([image("models-hf")], all_images())] == ["python", "vllm", "models-hf"]
    assert [built.key for built in with_bases([image("llama-cpp")], all_images())] == ["busybox", "llama-cpp"]


def test_stokers_context_holds_what_the_dockerfile_copies_and_no_more(tmp_path: Path) -> None:
    copy_stoker_sources(tmp_path)
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"requirements.txt", "operator/stoker/__init__.py"} <= copied
    assert not any("__pycache__" in path or path.startswith("tests") for path in copied)


def test_copy_lines_are_understood(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM a AS b\nCOPY one two/ /to/\nCOPY --chmod=755 three /to\nCOPY --from=b /x /y\n")
    assert copied_sources(dockerfile) == (ROOT / "one", ROOT / "two", ROOT / "three")


@pytest.fixture
def built_from_a_file(tmp_path: Path) -> Image:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.py").write_text("a")
    return Image("x", "x:1", tmp_path / "Dockerfile", ("1",), lambda _: None, sources=(tmp_path / "source",))


def test_unchanged_inputs_have_the_same_hash(built_from_a_file: Image) -> None:
    before = input_hash(built_from_a_file, "base")
    (built_from_a_file.sources[0] / "__pycache__").mkdir()
    (built_from_a_file.sources[0] / "__pycache__" / "a.pyc").write_text("compiled")
    assert input_hash(built_from_a_file, "base") == before


def test_any_changed_input_changes_the_hash(built_from_a_file: Image) -> None:
    before = input_hash(built_from_a_file, "base")
    hashes = {before, input_hash(built_from_a_file, "other base")}
    hashes.add(input_hash(replace(built_from_a_file, versions=("2",)), "base"))
    hashes.add(input_hash(replace(built_from_a_file, name="x:2"), "base"))
    (built_from_a_file.sources[0] / "a.py").write_text("b")
    hashes.add(input_hash(built_from_a_file, "base"))
    built_from_a_file.dockerfile.write_text("FROM scratch\nUSER 1\n")
    hashes.add(input_hash(built_from_a_file, "base"))
    assert len(hashes) == 6


def test_the_web_chats_stand_in_is_the_version_that_stoker_runs() -> None:
    from stoker.api.resolved import OperatorSettings

    built = image("open-webui")
    assert built.name == OperatorSettings(stoker_image="").web_ui_image
    version = built.name.rpartition(":v")[2]
    folder = built.dockerfile.parent
    assert f"open-webui[postgres]=={version}" in (folder / "requirements.in").read_text()
    assert f"open-webui=={version}\n" in (folder / "requirements.txt").read_text()
    left_out = [line.split()[0] for line in (folder / "left-out.txt").read_text().splitlines() if ";" in line]
    assert not {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()} & {
        *left_out
    }


def test_what_is_large_is_built_only_when_it_is_named() -> None:
    assert image("open-webui").on_request


def test_stokers_image_has_the_version_of_the_package() -> None:
    assert image("stoker").name == f"ghcr.io/stoker-dev/stoker:{stoker_version()}"
