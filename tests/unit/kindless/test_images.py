import json
import tarfile
from pathlib import Path

import pytest
from kindless.images import full_name, write_one_file_image


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("demo", "docker.io/library/demo:latest"),
        ("demo:1", "docker.io/library/demo:1"),
        ("org/demo:1", "docker.io/org/demo:1"),
        ("ghcr.io/org/demo", "ghcr.io/org/demo:latest"),
        ("localhost/demo:1", "localhost/demo:1"),
        ("registry:5000/demo", "registry:5000/demo:latest"),
        ("docker.io/demo@sha256:0", "docker.io/demo@sha256:0"),
    ],
)
def test_a_name_means_what_a_kubelet_makes_of_it(written: str, meant: str) -> None:
    assert full_name(written) == meant


def test_a_written_image_runs_its_one_file(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    write_one_file_image(tmp_path / "image.tar", "docker.io/a/b:1", program)
    with tarfile.open(tmp_path / "image.tar") as image:
        manifest = json.load(image.extractfile("manifest.json") or pytest.fail("no manifest"))
        config = json.load(image.extractfile("config.json") or pytest.fail("no config"))
        layer = image.extractfile("layer.tar") or pytest.fail("no layer")
        with tarfile.open(fileobj=layer) as files:
            member = files.getmember("pause")
    assert manifest[0]["RepoTags"] == ["docker.io/a/b:1"]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert (member.mode, member.size) == (0o755, 7)
