"""The usage process of a gateway, as kubelet would run it, and a PostgreSQL for it; the API server is a fake."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAME, NAMESPACE, SOURCE_ROOT, GatewayPod, exchange, until
from ports import free_port

TOKEN = "operator-token"


class UsagePod:
    """`stoker usage`, with its folder."""

    def __init__(self, folder: Path, kubernetes: FakeKubernetes, *, database_url: str = "") -> None:
        self.folder, self.port = folder, free_port()
        (folder / "data").mkdir(exist_ok=True)
        (folder / "token").write_text(TOKEN)
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE_ROOT),
            "KUBECONFIG": str(kubernetes.kubeconfig(folder / "usage-kubeconfig")),
            "STOKER_USAGE_NAMESPACE": NAMESPACE,
            "STOKER_USAGE_GATEWAY": NAME,
            "STOKER_USAGE_TOKEN_FILE": str(folder / "token"),
            "STOKER_USAGE_FOLDER": str(folder / "data"),
            "STOKER_USAGE_DATABASE_URL": database_url,
            "STOKER_USAGE_PORT": str(self.port),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "usage.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoker", "usage"], env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)

    def get(self, target: str) -> Any:
        """An answer's JSON; None while nobody answers."""
        try:
            answer = exchange(self.port, "GET", target, None, {"authorization": f"Bearer {TOKEN}"}, 10)
        except OSError:
            return None
        return json.loads(answer.body) if answer.status == 200 else None

    def total(self) -> dict[str, int]:
        found = self.get("/usage")
        return found["total"] if found else {}


def put_pods(kubernetes: FakeKubernetes, *pods: GatewayPod) -> None:
    """The EndpointSlices of the Service that names a gateway's pods: on loopback they differ by port, so each has its own."""
    for pod in pods:
        item = {
            "metadata": {"namespace": NAMESPACE, "name": f"{NAME}-pods-{pod.http_port}", "labels": {"kubernetes.io/service-name": f"{NAME}-pods"}},
            "addressType": "IPv4",
            "ports": [{"name": "policy", "port": pod.http_port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }  # fmt: skip
        kubernetes.call(kubernetes._put("endpointslices", item))


class Postgres:
    """A PostgreSQL server of Debian's, on a free port; not as root, who may not run it."""

    def __init__(self) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres")) or [shutil.which("postgres") or ""]
        assert found[-1], "no PostgreSQL: hack/servers installs it"
        self._bin = Path(found[-1]).parent
        # Not among pytest's folders: another run would lock out the user that the server runs as.
        self._data = Path(tempfile.mkdtemp(prefix="stoker-postgres-"))
        self.port = free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            shutil.chown(self._data, 65534, 65534)
        command = [
            *self._as,
            str(self._bin / "initdb"),
            "-D",
            str(self._data),
            "-A",
            "trust",
            "-U",
            "stoker",
            "--no-sync",
        ]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LANG": "C"})
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://stoker@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [*self._as, str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._data), "-F"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL")

    def stop(self) -> None:
        """As an administrator in a hurry does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=60)

    def remove(self) -> None:
        """Stop it, if it runs, and forget what it holds."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self._data)
