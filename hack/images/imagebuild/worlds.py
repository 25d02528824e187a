"""Docker's image store and buildah's, behind the few verbs that we need."""

import configparser
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kindless.cluster import read_cluster
from kindless.errors import KindlessError
from kindless.images import import_archive, imported_images, own_storage
from kindless.paths import cache_dir
from kindless.progress import run_with_progress

from .inputs import require_packages

UNNAMED_IMAGES_KEPT = 100
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Of the machine's pip settings, those that say where packages come from; the others name the machine's own paths.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


class World(Protocol):
    """Where images are built and kept."""

    builds_stand_ins: bool

    def image_ids(self) -> dict[str, str]: ...

    def build(self, name: str, dockerfile: Path, context: Path, keep_layers: bool) -> None: ...

    def load(self, cluster: str, images: dict[str, str]) -> list[str]: ...

    def push(self, name: str, target: str) -> None: ...


class DockerWorld:
    builds_stand_ins = False

    def image_ids(self) -> dict[str, str]:
        shown = output(["docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
        found = dict(line.split() for line in shown.splitlines())
        # Docker shows its own registry's names in their short form.
        return {name if has_registry(name) else f"docker.io/{name}": image for name, image in found.items()}

    def build(self, name: str, dockerfile: Path, context: Path, keep_layers: bool) -> None:
        command = ["docker", "buildx", "build", "--load", "--tag", name, "--file", str(dockerfile), str(context)]
        run_with_progress(command, f"docker build {name}")

    def load(self, cluster: str, images: dict[str, str]) -> list[str]:
        """kind compares the image's id and leaves alone what a node has."""
        for name in images:
            run_with_progress([kind(), "load", "docker-image", "--name", cluster, name], f"kind load {name}")
        return list(images)

    def push(self, name: str, target: str) -> None:
        output(["docker", "tag", name, target])
        run_with_progress(["docker", "push", target], f"docker push {target}")


class BuildahWorld:
    builds_stand_ins = True

    def __init__(self) -> None:
        require_packages({"buildah": "buildah", "unshare": "util-linux"})
        # In a mount namespace of its own: the storage library leaves a mount behind on its folder.
        self.buildah = ["unshare", "--mount", "buildah", *own_storage()]

    def image_ids(self) -> dict[str, str]:
        images = json.loads(output([*self.buildah, "images", "--json", "--no-trunc"]) or "[]")
        return {name: image["id"] for image in images or [] for name in image.get("names") or []}

    def build(self, name: str, dockerfile: Path, context: Path, keep_layers: bool) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            pip_config = Path(scratch) / "pip.conf"
            write_pip_config(pip_config)
            options = ["--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", name]
            options += ["--volume", f"{pip_config}:/etc/pip.conf:ro", f"--layers={str(keep_layers).lower()}"]
            if CERTIFICATES.exists():  # where a proxy with an authority of its own stands before the package index
                options += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
            command = [*self.buildah, "bud", *options, "--file", str(dockerfile), str(context)]
            run_with_progress(command, f"buildah bud {name}")
        self.prune()

    def prune(self) -> None:
        """Replaced images and the layers of earlier builds: worth keeping for the next build, but not for ever."""
        unnamed = output([*self.buildah, "images", "--filter", "dangling=true", "--quiet"]).split()
        if len(unnamed) > UNNAMED_IMAGES_KEPT:
            run_with_progress([*self.buildah, "rmi", "--prune", "--force"], "buildah rmi --prune")

    def load(self, cluster: str, images: dict[str, str]) -> list[str]:
        """Export each image once into the cache, and import what this cluster does not have in this version."""
        target = read_cluster(cluster)
        notes = target.directory / "loaded.json"
        loaded: dict[str, str] = json.loads(notes.read_text()) if notes.exists() else {}
        present = imported_images(target)
        imported = []
        for name, image in images.items():
            if loaded.get(name) == image and name in present:
                continue
            import_archive(target, self.archive(name, image))
            loaded[name] = image
            imported.append(name)
        notes.write_text(json.dumps(loaded, indent=1))
        return imported

    def archive(self, name: str, image: str) -> Path:
        directory = cache_dir() / "archives"
        directory.mkdir(parents=True, exist_ok=True)
        plain_name = name.replace("/", "_").replace(":", "_")
        archive = directory / f"{plain_name}-{image[-64:][:12]}.tar"
        if not archive.exists():
            for old in directory.glob(f"{plain_name}-*.tar*"):
                old.unlink()
            unfinished = archive.with_suffix(".tar.unfinished")
            command = [*self.buildah, "push", "--quiet", name, f"docker-archive:{unfinished}:{name}"]
            run_with_progress(command, f"export {name}")
            unfinished.rename(archive)
        return archive

    def push(self, name: str, target: str) -> None:
        run_with_progress([*self.buildah, "push", name, f"docker://{target}"], f"buildah push {target}")


def write_pip_config(path: Path) -> None:
    """pip inside a build asks the index that pip on this machine asks."""
    config = configparser.RawConfigParser()
    config.add_section("global")
    pip = shutil.which("pip") or shutil.which("pip3")
    shown = output([pip, "config", "list"]) if pip else ""
    for line in shown.splitlines():
        key, _, value = line.partition("=")
        setting = key.rpartition(".")[2]
        if setting in PIP_SETTINGS:
            config.set("global", setting, value.strip("'"))
    with path.open("w") as file:
        config.write(file)


def has_registry(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def kind() -> str:
    ours = Path(__file__).resolve().parents[3] / ".stoker" / "bin" / "kind"
    found = str(ours) if ours.exists() else shutil.which("kind")
    if not found:
        raise KindlessError("kind is missing: hack/tools ensure")
    return found


def output(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KindlessError(f"{' '.join(str(part) for part in command)}: {done.stderr.strip()}")
    return done.stdout
