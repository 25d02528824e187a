"""Fakes of the two that run as a daemon beside a command that talks to it: Ollama and LM Studio.

Both listen at once, without a model; both cut what runs when they end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from serving import PORT, Answer, Engine, LoadError, Model, error, listen, load_model, on_end_signal, sleep_on

SETTINGS_OF_OLLAMA = {"HOST", "MODELS", "KEEP_ALIVE", "MAX_LOADED_MODELS", "NUM_PARALLEL", "CONTEXT_LENGTH", "NO_CLOUD"} | {
    "NOPRUNE", "SCHED_SPREAD", "VULKAN", "KV_CACHE_TYPE", "FLASH_ATTENTION",
}  # fmt: skip
FLAGS_OF_LMS_LOAD = {"--identifier", "--context-length", "--gpu", "--parallel", "--yes"}


class Ollama(Engine):
    """/ says that it runs; /api/ps lists what is loaded. Other names are not known; no metrics."""

    knows_other_names = False

    def __init__(self) -> None:
        self.model = Model(slots=int(os.environ.get("OLLAMA_NUM_PARALLEL", "1")))
        self.store = Path(os.environ["OLLAMA_MODELS"])

    def get(self, path: str) -> Answer:
        if path == "/":
            return 200, "Ollama is running"
        if path == "/api/tags":
            return 200, json.dumps({"models": [{"name": full(name)} for name in self.model.names]})
        if path == "/api/ps":
            loaded = [{"name": full(name), "model": full(name)} for name in self.model.names[:1] if self.model.loaded]
            return 200, json.dumps({"models": loaded})
        return 404, "404 page not found"

    def post(self, path: str, body: dict[str, Any]) -> Answer | None:
        if path == "/api/pull":
            if body["model"] == "gone":
                return 500, json.dumps({"error": "pull model manifest: file does not exist"})
            self.keep(body["model"])
        elif path == "/api/create":
            if not Path(body["from"]).exists():
                return 400, json.dumps({"error": f"invalid model name or path: {body['from']}"})
            self.keep(body["model"])
        elif path == "/api/copy":
            self.keep(body["destination"])
        elif path == "/api/generate":
            if body["model"] not in self.model.names:
                return 404, json.dumps({"error": f"model '{body['model']}' not found"})
            try:
                load_model()
            except LoadError:
                return 500, json.dumps({"error": "llama runner process has terminated: exit status 1"})
            # The one that was asked for is the one that /api/ps shows.
            others = (name for name in self.model.names if name != body["model"])
            self.model.names = (body["model"], *others)
            self.model.loaded = True
        else:
            return None
        return 200, json.dumps({"status": "success"})

    def keep(self, name: str) -> None:
        self.store.mkdir(exist_ok=True)
        (self.store / name.replace("/", "_")).touch()
        self.model.names += (name,)

    def refuse(self, body: dict[str, Any]) -> Answer | None:
        if body.get("model") not in self.model.names:
            return error(404, f"model '{body.get('model')}' not found", "api_error")
        return super().refuse(body)


def full(name: str) -> str:
    """As it is shown: with a tag."""
    return name if ":" in name else f"{name}:latest"


def ollama(words: list[str]) -> None:
    if words[0] != "serve":
        sys.exit(client_of_ollama(words))
    given = {name.removeprefix("OLLAMA_") for name in os.environ if name.startswith("OLLAMA_")}
    if unknown := given - SETTINGS_OF_OLLAMA:
        sys.exit(f"unknown settings: {unknown}")
    if os.environ["OLLAMA_HOST"] != f"0.0.0.0:{PORT}":
        sys.exit("nobody would find it")
    engine = Ollama()
    on_end_signal(engine.stop)
    listen(engine)
    sleep_on()


def client_of_ollama(words: list[str]) -> int:
    command, *rest = words
    if command == "list":
        return ask("GET", "/api/tags")
    if command == "pull":
        return ask("POST", "/api/pull", {"model": rest[0]})
    if command == "cp":
        return ask("POST", "/api/copy", {"source": rest[0], "destination": rest[1]})
    if command == "run":
        return ask("POST", "/api/generate", {"model": rest[0], "prompt": rest[1]})
    if command == "create" and rest[1] == "-f":
        line = Path(rest[2]).read_text().strip()
        return ask("POST", "/api/create", {"model": rest[0], "from": line.removeprefix("FROM ")})
    print(f'Error: unknown command "{command}" for "ollama"', file=sys.stderr)
    return 1


class LMStudio(Engine):
    """Paths that it does not know are answered with 200. A model that is there but not loaded has the state not-loaded."""

    def __init__(self) -> None:
        self.model = Model(slots=4)
        self.files: dict[str, str] = {}

    def get(self, path: str) -> Answer:
        if path == "/lmstudio-greeting":
            return 200, json.dumps({"lmstudio": True})
        name = path.removeprefix("/api/v0/models/")
        if name in (*self.model.names, *self.files):
            state = "loaded" if self.model.loaded else "not-loaded"
            return 200, json.dumps({"id": name, "type": "llm", "state": state})
        return 200, json.dumps({"error": f"Unexpected endpoint or method. ({path})"})

    def post(self, path: str, body: dict[str, Any]) -> Answer | None:
        """How the command reaches the daemon is not documented; this is the fake's own way."""
        if path == "/fake/import":
            if not Path(body["path"]).exists():
                return 400, json.dumps({"error": "no such file"})
            self.files[body["repository"]] = body["path"]
        elif path == "/fake/load":
            if body["model"] not in self.files:
                return 404, json.dumps({"error": "no such model"})
            self.model = Model(body["identifier"], slots=body["parallel"])
            try:
                load_model()
            except LoadError:
                return 500, json.dumps({"error": "Failed to load the model"})
            self.model.loaded = True
        elif path == "/fake/down":
            os._exit(0)
        else:
            return None
        return 200, "{}"


def lms(words: list[str]) -> None:
    """`lms daemon up` leaves a daemon behind; in this fake its port is open from then on."""
    match words:
        case ["daemon", "up", *_]:
            subprocess.Popen([sys.executable, __file__], start_new_session=True)
            until_it_answers()
        case ["daemon", "down"]:
            with suppress(OSError):  # It ends before it can answer.
                ask("POST", "/fake/down", {})
        case ["server", "start", "--port", port, "--bind", "0.0.0.0"]:
            sys.exit(port != str(PORT))
        case ["import", path, "--user-repo", repository, "--symbolic-link", "-y"]:
            sys.exit(ask("POST", "/fake/import", {"path": path, "repository": repository}))
        case ["load", model, *rest]:
            if unknown := {word for word in rest if word.startswith("--")} - FLAGS_OF_LMS_LOAD:
                sys.exit(f"error: unknown option {', '.join(unknown)}")
            given = {"identifier": rest[1], "parallel": int(rest[rest.index("--parallel") + 1])}
            sys.exit(ask("POST", "/fake/load", {"model": model, **given}))
        case ["ps", "--json"]:
            sys.exit(ask("GET", "/lmstudio-greeting"))
        case _:
            sys.exit(f"error: unknown command {' '.join(words)}")


def daemon_of_lms() -> NoReturn:
    engine = LMStudio()
    on_end_signal(engine.stop)
    listen(engine)
    sleep_on()


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> int:
    """Exit status of a command."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request):
            return 0
    except urllib.error.HTTPError as refused:
        print(refused.read().decode(), file=sys.stderr)
        return 1


def until_it_answers() -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with suppress(OSError):
            sys.exit(ask("GET", "/lmstudio-greeting"))
        time.sleep(0.05)
    sys.exit("the daemon does not answer")


if __name__ == "__main__":
    daemon_of_lms()
