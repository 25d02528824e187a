"""Images: written by ourselves, taken out of buildah's storage, put into a node's containerd."""

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .cluster import Cluster
from .errors import KindlessError
from .paths import cache_dir
from .preflight import overlay_works

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def write_one_file_image(archive: Path, name: str, program: Path) -> None:
    """A docker-archive whose only layer holds one executable, which is the entry point."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo(program.name)
        member.mode, member.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(member, file)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        files = (("config.json", config), ("layer.tar", layer.getvalue()), ("manifest.json", manifest))
        for path, content in files:
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def full_name(image: str) -> str:
    """The name that a kubelet makes of what stands in a pod."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    if ":" not in image.rsplit("/", 1)[-1] and "@" not in image:
        image += ":latest"
    return image


def import_archive(cluster: Cluster, archive: Path) -> None:
    if cluster.control_plane_only:
        raise KindlessError(f'cluster "{cluster.name}" has no node that could run an image (--control-plane-only)')
    done = ctr(cluster, "images", "import", str(archive))
    if done.returncode:
        raise KindlessError(f"cannot import {archive}: {done.stderr.strip()}")


def imported_images(cluster: Cluster) -> set[str]:
    return set(ctr(cluster, "images", "list", "--quiet").stdout.split())


def ctr(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(cluster.containerd_socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def load_local_image(cluster: Cluster, image: str) -> None:
    """From our own storage, else from buildah's default one."""
    name = full_name(image)
    archive = cluster.directory / f"load-{os.getpid()}.tar"
    for storage in ([*own_storage()], []):
        for candidate in (image, name, f"localhost/{image}"):
            if buildah(storage, "inspect", "--type", "image", candidate).returncode:
                continue
            pushed = buildah(storage, "push", "--quiet", candidate, f"docker-archive:{archive}:{name}")
            try:
                if pushed.returncode:
                    raise KindlessError(f"cannot export {image}: {pushed.stderr.strip()}")
                import_archive(cluster, archive)
            finally:
                archive.unlink(missing_ok=True)
            return
    raise KindlessError(f'image: "{image}" not present locally')


def own_storage() -> Sequence[str]:
    """buildah's options for the images that this repository builds; kept in the cache so that they outlive a reboot."""
    root = cache_dir() / "containers"
    driver = root / "driver"
    if not driver.exists():
        root.mkdir(parents=True, exist_ok=True)
        driver.write_text("overlay" if overlay_works(root) else "vfs")
    return ["--root", f"{root}/storage", "--runroot", f"{root}/run", "--storage-driver", driver.read_text()]


def buildah(storage: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a mount namespace of its own: the storage library leaves a mount behind on its folder."""
    command = ["unshare", "--mount", "buildah", *storage, *arguments]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
