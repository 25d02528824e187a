"""hack/images/build: build what changed, load it into a cluster, or publish Stoker's own image."""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kindless.errors import KindlessError
from kindless.paths import cache_dir
from kindless.progress import interrupt_on_termination, say
from kindless.runtime import choose_runtime

from .recipes import ROOT, Image, all_images
from .worlds import BuildahWorld, DockerWorld, World


def main() -> None:
    images = all_images()
    parser = argparse.ArgumentParser(prog="hack/images/build", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=", ".join(image.key for image in images))
    parser.add_argument("--world", choices=["docker", "buildah", "auto"], default="auto")
    parser.add_argument("--load", metavar="CLUSTER", help="build, then load into this kind cluster")
    parser.add_argument("--push", metavar="REGISTRY", help="build, then publish Stoker's own image there")
    parser.add_argument(
        "--print-id", metavar="IMAGE", help="build, then print the id of this image as the only output line"
    )
    arguments = parser.parse_args()
    asked = {*arguments.images, *([arguments.print_id] if arguments.print_id else [])}
    if unknown := asked - {image.key for image in images}:
        parser.error(f"no such image: {', '.join(sorted(unknown))}")
    interrupt_on_termination()
    try:
        world = choose_world(arguments.world)
        if arguments.push:
            wanted = with_bases([image for image in images if image.key == "stoker"], images)
        else:
            wanted = with_bases(select(images, arguments.images), images)
        with build_lock():
            built = build_images(world, [image for image in wanted if world.builds_stand_ins or not image.stands_in])
            if arguments.load:
                load(world, arguments.load, built, arguments.images)
            if arguments.print_id:
                print(next(image_id for image, image_id in built.items() if image.key == arguments.print_id))
        if arguments.push:
            push(world, arguments.push, next(image for image in wanted if image.key == "stoker"))
    except KindlessError as error:
        sys.exit(f"ERROR: {error}")
    except KeyboardInterrupt:
        sys.exit("ERROR: interrupted")


def choose_world(asked: str) -> World:
    if asked == "docker" or (asked == "auto" and choose_runtime() == "docker"):
        return DockerWorld()
    if os.geteuid() != 0:
        raise KindlessError("building images without Docker needs root")
    return BuildahWorld()


def select(images: list[Image], asked: list[str]) -> list[Image]:
    if asked:
        return [image for image in images if image.key in asked]
    return [image for image in images if not image.on_request]


def with_bases(wanted: list[Image], images: list[Image]) -> list[Image]:
    keys = {image.key for image in wanted}
    for image in reversed(images):
        if image.key in keys:
            keys.add(image.base)
    return [image for image in images if image.key in keys]


@contextmanager
def build_lock() -> Iterator[None]:
    path = cache_dir() / "images" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Images are being built in this cache already; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_images(world: World, images: list[Image]) -> dict[Image, str]:
    """Build what is absent or made from other inputs; the ids of all of them."""
    notes = cache_dir() / "images" / f"{type(world).__name__}.json"
    built_from: dict[str, list[str]] = json.loads(notes.read_text()) if notes.exists() else {}
    ids = world.image_ids()
    hashes: dict[str, str] = {}
    for image in images:
        hashes[image.key] = input_hash(image, hashes.get(image.base, ""))
        if built_from.get(image.name) == [hashes[image.key], ids.get(image.name)]:
            continue
        started = time.monotonic()
        say(f"Building {image.name}")
        with tempfile.TemporaryDirectory(dir=cache_dir() / "images") as context:
            image.prepare(Path(context))
            world.build(image.name, image.dockerfile, Path(context), image.keep_layers)
        ids = world.image_ids()
        built_from[image.name] = [hashes[image.key], ids[image.name]]
        notes.write_text(json.dumps(built_from, indent=1))
        say(f"  {image.name}: {time.monotonic() - started:.1f} s")
    return {image: ids[image.name] for image in images}


def input_hash(image: Image, base_hash: str) -> str:
    digest = hashlib.sha256("\0".join([image.name, base_hash, *image.versions]).encode())
    digest.update(image.dockerfile.read_bytes())
    for source in image.sources:
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"\0{os.path.relpath(file, ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def load(world: World, cluster: str, built: dict[Image, str], asked: list[str]) -> None:
    started = time.monotonic()
    chosen = {
        image.name: image_id for image, image_id in built.items() if (image.key in asked if asked else image.loaded)
    }
    imported = world.load(cluster, chosen)
    say(f"{cluster}: {len(imported)} of {len(chosen)} images loaded in {time.monotonic() - started:.1f} s")


def push(world: World, registry: str, image: Image) -> None:
    target = f"{registry.rstrip('/')}/{image.name.rpartition('/')[2]}"
    world.push(image.name, target)
    print(target)
