"""A control plane with KWOK nodes, the chart's own rights, and operators that run beside it as processes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx
import yaml
from ports import free_port

from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".stoker/bin"
SYSTEM = "stoker-system"
ACCOUNT = "stoker-operator"
# A control plane this small spends a quarter of its time on garbage; it has memory enough to do so less often.
CONTROL_PLANE_GOGC = "400"
Object = dict[str, Any]


@dataclass(frozen=True)
class ControlPlane:
    """A cluster without containers."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """An admin's."""
        return self.folder / "kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        """One with the token of the operator's service account, and so with the chart's rights only."""
        return self.folder / "operator-kubeconfig"

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 90) -> str:
        """Run kubectl as an admin; its output."""
        here = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.folder / "cache")]
        done = subprocess.run(
            [str(BIN / "kubectl"), *here, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def apply(self, *objects: Object, namespace: str) -> None:
        """Apply objects as a user does."""
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def client(self) -> KubeClient:
        """An admin's client; to be used in a running event loop."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
        return KubeClient(
            Connection(
                server=cluster["server"],
                ca_file=str(_data(self.folder / "ca.crt", cluster["certificate-authority-data"])),
                client_certificate=str(_data(self.folder / "admin.crt", user["client-certificate-data"])),
                client_key=str(_data(self.folder / "admin.key", user["client-key-data"])),
            )
        )


@contextlib.contextmanager
def control_plane(name: str, folder: Path, *, kwok_nodes: int, capacity: str = "") -> Iterator[ControlPlane]:
    """A control plane with the CRDs and the operator's account and rights, gone afterwards."""
    plane = ControlPlane(folder)
    command = [str(BIN / "kindless")]
    named = ["cluster", "--name", name, "--kubeconfig", str(plane.kubeconfig)]
    subprocess.run([*command, "delete", *named], check=True, capture_output=True, timeout=60)
    extra = ["--kwok-capacity", capacity] if capacity else []
    subprocess.run(
        [*command, "create", *named, "--control-plane-only", "--kwok-nodes", str(kwok_nodes), *extra, "--quiet"],
        check=True,
        timeout=300,
        env={**os.environ, "GOGC": CONTROL_PLANE_GOGC},
    )
    try:
        _install(plane)
        yield plane
    finally:
        subprocess.run([*command, "delete", *named], check=True, capture_output=True, timeout=60)


def _install(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=90s")
    plane.kubectl("create", "namespace", SYSTEM)
    # kubectl wrote down that our kinds do not exist.
    shutil.rmtree(plane.folder / "cache", ignore_errors=True)
    operator_account(plane, SYSTEM).rename(plane.operator_kubeconfig)


def operator_account(plane: ControlPlane, namespace: str, *values: str) -> Path:
    """The service account and rights that the chart makes with these values; a kubeconfig with its token."""
    settings = [part for value in ("crds.enabled=false", *values) for part in ("--set", value)]
    chart = [str(BIN / "helm"), "template", "stoker", str(ROOT / "charts/stoker"), "--namespace", namespace]
    rendered = subprocess.run([*chart, *settings], check=True, capture_output=True, text=True, timeout=60)
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    rights = [document for document in yaml.safe_load_all(rendered.stdout) if document and document["kind"] in kinds]
    plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    token = plane.kubectl("create", "token", ACCOUNT, "-n", namespace, "--duration=24h").strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = plane.folder / f"kubeconfig-of-{namespace}"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class OperatorProcess:
    """`stoker operator`, as a process of the machine, with the rights of the chart."""

    plane: ControlPlane
    name: str
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    made: ClassVar[list[OperatorProcess]] = []
    """Those whose logs a failed test shows."""

    def __post_init__(self) -> None:
        self.made.append(self)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.plane.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until its port answers."""
        self.port = free_port()
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.plane.operator_kubeconfig),
            "POD_NAME": self.name,
            "POD_NAMESPACE": SYSTEM,
            "STOKER_HTTP_PORT": str(self.port),
            "PYTHONPATH": str(ROOT / "operator"),
            **self.environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stoker", "operator"],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.plane.folder,
            )
        self.wait_for("/readyz")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def wait_for(self, path: str, timeout: float = 90) -> None:
        """Wait until its port says that all is well."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.running, f"the operator has ended: {self.log.read_text()[-2000:]}"
            with contextlib.suppress(httpx.HTTPError):
                if self._get(path).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{path} is not 200: {self.log.read_text()[-2000:]}")

    def metrics(self) -> dict[str, float]:
        """Its metrics by name with labels."""
        lines = (line for line in self._get("/metrics").text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def writes(self) -> dict[str, float]:
        """Successful writes so far by verb and resource, leases aside."""
        found = {name: value for name, value in self.metrics().items() if name.startswith("stoker_api_writes_total")}
        return {name: value for name, value in found.items() if 'resource="leases"' not in name}

    def messages(self) -> list[Object]:
        """Its log, line by line; of the last one it may have written only a part so far."""
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _get(self, path: str) -> httpx.Response:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30, trust_env=False)
        except httpx.HTTPError:
            assert self.running, f"the operator has ended: {self.log.read_text()[-3000:]}"
            raise


def _data(path: Path, encoded: str) -> Path:
    path.touch(0o600)
    path.write_bytes(base64.b64decode(encoded))
    return path
