"""A bare control plane for tests of manifests: what the API server takes, fills in and refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".stoker/bin"
CLUSTER = "stoker-manifests"
NAMESPACE = "manifests"
GROUP_VERSION = "stoker.dev/v1alpha1"


@dataclass(frozen=True)
class ApiServer:
    """kubectl for what people do, plain HTTP for what is done a hundred times."""

    kubeconfig: Path
    http: httpx.Client

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl against this control plane."""
        here = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "cache")]
        command = [str(BIN / "kubectl"), *here, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done

    def create(self, plural: str, body: dict[str, Any], *, dry_run: bool = True) -> httpx.Response:
        """Create an object of ours; nothing is kept unless asked for."""
        return self.http.post(_collection(plural), json=body, params=_query(dry_run))

    def replace(self, plural: str, body: dict[str, Any]) -> httpx.Response:
        """Try to replace a stored object, without keeping the outcome."""
        path = f"{_collection(plural)}/{body['metadata']['name']}"
        stored = self.http.get(path).raise_for_status().json()["metadata"]["resourceVersion"]
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": stored}}
        return self.http.put(path, json=body, params=_query(True))

    def delete(self, plural: str, name: str) -> None:
        """Delete an object of ours."""
        self.http.delete(f"{_collection(plural)}/{name}").raise_for_status()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A control plane of its own with the CRDs of crds/; no operator runs here."""
    kubeconfig = tmp_path_factory.mktemp("manifests") / "kubeconfig"
    kindless = [str(BIN / "kindless")]
    named = ["cluster", "--name", CLUSTER, "--kubeconfig", str(kubeconfig)]
    subprocess.run([*kindless, "delete", *named], check=True, capture_output=True, timeout=60)
    subprocess.run([*kindless, "create", *named, "--control-plane-only", "--quiet"], check=True, timeout=300)
    try:
        with _proxy(kubeconfig) as http:
            server = ApiServer(kubeconfig, http)
            server.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
            server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=90s")
            server.kubectl("create", "namespace", NAMESPACE)
            shutil.rmtree(kubeconfig.parent / "cache")  # kubectl wrote down there that our kinds do not exist
            yield server
    finally:
        subprocess.run([*kindless, "delete", *named], check=True, capture_output=True, timeout=60)


@contextmanager
def _proxy(kubeconfig: Path) -> Iterator[httpx.Client]:
    command = [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert address is not None
            with httpx.Client(base_url=f"http://{address[0]}", timeout=30, trust_env=False) as client:
                yield client
        finally:
            process.terminate()


def _collection(plural: str) -> str:
    return f"/apis/{GROUP_VERSION}/namespaces/{NAMESPACE}/{plural}"


def _query(dry_run: bool) -> dict[str, str]:
    return {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
