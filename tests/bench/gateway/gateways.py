"""What is measured: Stoker's gateway, Envoy with nothing in it, and the peers; each in front of the same two engine ports."""

from __future__ import annotations

import abc
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench.gateway.peers import Peer, Place
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod, find_envoy
from ports import free_port

MODELS = ("model-a", "model-b")
KEY = "sk-bench"
OTHER_KEYS = 1000
NEW_MODELS = tuple(f"new-{number}" for number in range(10))
"""Models of Stoker's gateway that have no endpoint yet."""
START_SECONDS = 90


class Gateway(abc.ABC):
    """One that can be started, asked and looked at."""

    name: str
    key = KEY
    port: int

    @abc.abstractmethod
    def start(self) -> None: ...

    @abc.abstractmethod
    def stop(self) -> None: ...

    @property
    @abc.abstractmethod
    def pids(self) -> list[int]:
        """Roots of its process trees."""


class Stoker(Gateway):
    """Envoy with policy and relay as in a gateway's pod; the API server is a fake, outside of what is measured."""

    name = "Stoker"

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.kubernetes = FakeKubernetes()
        self.config = Config().key("bench", KEY)
        for number in range(OTHER_KEYS):
            self.config.key(f"other-{number}", f"sk-other-{number}")
        for model, port in zip(MODELS, ports, strict=True):
            self.config.model(model)
            self.kubernetes.put_endpoints(NAMESPACE, model, [port])
        for model in NEW_MODELS:
            self.config.model(model)
        self.pod = GatewayPod(folder, self.kubernetes, workers=1)
        self.port = self.pod.port

    def start(self) -> None:
        self.config.apply(self.kubernetes)
        self.pod.start()

    def stop(self) -> None:
        self.pod.stop()
        self.kubernetes.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in (self.pod.supervisor, self.pod.envoy) if process is not None]


class Command(Gateway):
    """A gateway that is one command."""

    def __init__(self, name: str, folder: Path, port: int, command: list[str], env: Mapping[str, str]) -> None:
        self.name, self.port = name, port
        self._log = folder / f"{name.replace(' ', '-')}.log"
        self._command, self._env = command, {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not serves(self):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} does not serve: {self._log.read_text(errors='replace')[-800:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # Its whole process group: peers start workers of their own.
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process is not None else []


class Direct(Gateway):
    """No gateway: the engine itself."""

    name = "direct"
    key = ""

    def __init__(self, ports: list[int]) -> None:
        self.port = ports[0]

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """It is somebody else's."""

    @property
    def pids(self) -> list[int]:
        return []


def bare_envoy(folder: Path, ports: list[int]) -> Gateway:
    """One listener, one cluster with both ports, no check, no log: what Envoy costs before it does anything for us."""
    port = free_port()
    config = folder / "bare-envoy.json"
    config.write_text(json.dumps(bare_config(port, ports)))
    command = [find_envoy(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    return Command("bare Envoy", folder, port, command, {})


def peer(which: Peer, folder: Path, ports: list[int]) -> Gateway:
    """A peer that is installed."""
    port = free_port()
    command, env = which.command(Place(folder, port, free_port(), ports, MODELS, KEY))
    return Command(which.name, folder, port, command, env)


def bare_config(port: int, ports: list[int]) -> dict[str, object]:
    extension = "type.googleapis.com/envoy.extensions."
    many = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}

    def at(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    manager = {
        "@type": extension + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": extension + "filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}],
                }
            ]
        },
    }
    endpoints = [{"endpoint": {"address": at(number)}} for number in ports]
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {
        "name": "bare",
        "address": at(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def serves(gateway: Gateway) -> bool:
    """Whether both models answer."""
    for model in MODELS:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        try:
            content = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
            headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.key}"}
            connection.request("POST", "/v1/chat/completions", content, headers)
            if connection.getresponse().status != 200:
                return False
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
    return True
