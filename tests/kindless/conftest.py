"""Clusters of the tests' own: in a cache folder of their own, with the executables of the shared one."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KIND = HERE / "kind"
sys.path.insert(0, str(HERE))

from kindless.paths import cache_dir  # noqa: E402
from kindless.tools import kubebox_dir  # noqa: E402

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root")


class Kind:
    """The `kind` command with a cache and a kubeconfig of its own."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.kubeconfig = cache / "kubeconfig"
        self.numbers: set[int] = set()
        """Of the clusters seen so far: they are in the names of network interfaces."""
        self.environment = {**os.environ, "STOKER_CACHE": str(cache), "KUBECONFIG": str(self.kubeconfig)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(KIND), *arguments]
        return subprocess.Popen(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=400)
        assert process.returncode == 0 or not check, f"kind {' '.join(arguments)}: {errors}"
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        command: Sequence[str] = [str(kubebox_dir() / "kubectl"), *arguments]
        done = subprocess.run(command, env=self.environment, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def clusters(self) -> list[str]:
        return self("get", "clusters").stdout.split()


def new_kind() -> Kind:
    """Not in pytest's own folder, whose name is too long for a unix socket."""
    cache = Path(tempfile.mkdtemp(prefix="stoker-kind-"))
    kubebox_dir()
    (cache / "bin").symlink_to(cache_dir() / "bin")
    return Kind(cache)


@pytest.fixture
def kind() -> Iterator[Kind]:
    kind = new_kind()
    try:
        yield kind
    finally:
        kind("delete", "clusters", "--all")
        shutil.rmtree(kind.cache)


@pytest.fixture(scope="module")
def module_kind() -> Iterator[Kind]:
    kind = new_kind()
    try:
        yield kind
    finally:
        kind("delete", "clusters", "--all")
        shutil.rmtree(kind.cache)
