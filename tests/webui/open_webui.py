"""A real Open WebUI on loopback, with the environment that Stoker renders for its pod."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.pod import Answer, exchange, until
from imagebuild.inputs import cache_dir
from ports import free_port

from stoker.api import ApiGateway
from stoker.api.web_ui import WebUI
from stoker.desired.web_ui_env import build_env

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "hack" / "images" / "open-webui" / "requirements.txt"
UV = Path(sys.executable).with_name("uv")

EMAIL, PASSWORD = "admin@localhost", "the-password-that-stoker-made"
USER_SECRET = "what-open-webui-signs-its-users-with-0123456789"
SERVICE_KEY = "sk-stoker-open-webui"
SECRETS = {
    ("gateway-webui-secrets", "secretKey"): "what-open-webui-signs-its-sessions-with",
    ("gateway-webui-secrets", "secret"): USER_SECRET,
    ("gateway-webui-admin", "email"): EMAIL,
    ("gateway-webui-admin", "password"): PASSWORD,
    ("gateway-webui", "apiKey"): SERVICE_KEY,
}


def install() -> Path:
    """The same packages as in the image, once for each set of pins; the program."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    home = cache_dir() / "open-webui" / digest
    program = home / "bin" / "open-webui"
    if not (home / "complete").exists():
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
        pip = [UV, "pip", "install", "--quiet", "--no-deps", "--python", home / "bin" / "python"]
        subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
        (home / "complete").touch()
    return program


class OpenWebUI:
    """One process: a pod's container, but for the places it writes to and the gateway's address."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        gateway_port: int,
        *,
        port: int = 0,
        secrets: Mapping[tuple[str, str], str] = SECRETS,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.port = folder, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = program
        given = dict(spec or {})
        given["webUI"] = {"url": self.url, **given.get("webUI", {})}
        metadata = {"name": "gateway", "namespace": "team-a", "uid": "u"}
        gateway = ApiGateway.model_validate({"metadata": metadata, "spec": given})
        assert isinstance(gateway.spec.web_ui, WebUI)
        rendered = {}
        for entry in build_env(gateway, gateway.spec.web_ui):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            rendered[entry["name"]] = secrets[reference["name"], reference["key"]] if reference else entry["value"]
        places = {"DATA_DIR": "data", "STATIC_DIR": "static", "HOME": "home"}
        for name in places.values():
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.environment = {
            **rendered,
            **{variable: str(folder / name) for variable, name in places.items()},
            "OPENAI_API_BASE_URL": f"http://127.0.0.1:{gateway_port}/v1",
            "PATH": os.environ["PATH"],
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._sessions: dict[str, str] = {}

    def start(self) -> None:
        command = [self._program, "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            try:
                return self.request("GET", "/ready").status == 200
            except OSError:
                return False

        until(is_ready, "Open WebUI is ready", within=180)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def request(
        self, method: str, target: str, body: Any = None, token: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:  # fmt: skip
        """One call to its API."""
        sent = {"content-type": "application/json", **(headers or {})}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        return exchange(self.port, method, target, data, sent, 60)

    def sign_in(self, email: str = EMAIL, password: str = PASSWORD) -> str:
        """A session token; kept, for more than a few sign-ins in a row are refused."""
        if email in self._sessions:
            return self._sessions[email]
        answer = self.request("POST", "/api/v1/auths/signin", {"email": email, "password": password})
        assert answer.status == 200, answer.body
        self._sessions[email] = answer.json["token"]
        return self._sessions[email]

    def add(self, email: str, role: str, password: str = "a-long-password") -> str:
        """An account that the admin makes; a session token of it."""
        entry = {"name": email.partition("@")[0], "email": email, "password": password, "role": role}
        answer = self.request("POST", "/api/v1/auths/add", entry, self.sign_in())
        assert answer.status == 200, answer.body
        return self.sign_in(email, password)

    @contextlib.contextmanager
    def group(self, name: str, token: str) -> Iterator[None]:
        """The admin makes a group with somebody in it, which is gone afterwards."""
        admin = self.sign_in()
        made = self.request("POST", "/api/v1/groups/create", {"name": name, "description": "d"}, admin)
        assert made.status == 200, made.body
        member = {"user_ids": [self.request("GET", "/api/v1/auths/", token=token).json["id"]]}
        added = self.request("POST", f"/api/v1/groups/id/{made.json['id']}/users/add", member, admin)
        assert added.status == 200, added.body
        try:
            yield
        finally:
            self.request("DELETE", f"/api/v1/groups/id/{made.json['id']}/delete", token=admin)

    def chat(self, token: str | None, model: str = "qwen", headers: Mapping[str, str] | None = None) -> Answer:
        body = {"model": model, "stream": False, "messages": [{"role": "user", "content": "Hello"}]}
        return self.request("POST", "/api/chat/completions", body, token, headers)
