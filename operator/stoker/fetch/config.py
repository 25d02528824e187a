"""What the pod template tells the downloader, as JSON in STOKER_FETCH."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import Stalled
from stoker.models.fit import FitRequest, parse_fit_request

CONFIG_VARIABLE = "STOKER_FETCH"
TOKEN_VARIABLE = "STOKER_FETCH_TOKEN"
"""Kept apart from the configuration, because it comes from a Secret."""
DEFAULT_CACHE = "/models"
DEFAULT_PROGRESS_FILE = "/run/stoker/progress.json"

SHA256 = re.compile(r"[0-9a-f]{64}")
DIGEST = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class SourceFile:
    """One file of a model; a split GGUF has several."""

    name: str
    url: str
    sha256: str = ""
    """Empty: what the source sends is believed."""


@dataclass(frozen=True)
class FetchConfig:
    """One model to bring into the cache."""

    digest: str
    files: tuple[SourceFile, ...]
    cache: Path = Path(DEFAULT_CACHE)
    progress_file: Path = Path(DEFAULT_PROGRESS_FILE)
    token: str = ""
    fit: FitRequest | None = None
    """How the model is to be run; None: its header is not looked at."""
    fit_policy: str = "Enforce"

    @property
    def folder(self) -> Path:
        """Where the weights lie when they are whole."""
        return self.cache / self.digest

    @property
    def partial(self) -> Path:
        """Where they lie until then; the same name in each pod, so that any of them can go on with it."""
        return self.cache / f".partial-{self.digest}"

    @property
    def lock_file(self) -> Path:
        """Beside the folders, not in them: it stays when they are renamed."""
        return self.cache / f".lock-{self.digest}"


def parse_config(environment: Mapping[str, str]) -> FetchConfig:
    """Names end up as paths and header values, so nothing is taken on trust that could leave the cache folder or split a header."""
    text = environment.get(CONFIG_VARIABLE, "")
    try:
        data = json.loads(text)
        digest = str(data["digest"])
        files = tuple(
            SourceFile(str(file["name"]), str(file["url"]), str(file.get("sha256") or "").lower())
            for file in data["files"]
        )
        cache = Path(data.get("cache") or DEFAULT_CACHE)
        progress_file = Path(data.get("progressFile") or DEFAULT_PROGRESS_FILE)
        fit = parse_fit_request(data["fit"]) if data.get("fit") else None
        fit_policy = str(data.get("fitPolicy") or "Enforce")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(
            f"it does not hold the JSON that `stoker fetch` reads ({type(error).__name__}: {error})"
        ) from error
    if not DIGEST.fullmatch(digest):
        raise _refused(f"digest {digest!r} is not 8 to 64 hex digits")
    if not files:
        raise _refused("files is empty")
    for file in files:
        if file.name in ("", ".", "..") or "/" in file.name or "\0" in file.name or file.name.startswith(".stoker"):
            raise _refused(f"{file.name!r} is not a plain file name")
        if not file.url.startswith(("http://", "https://")):
            raise _refused(f"the URL of {file.name} does not start with https:// or http://")
        if file.sha256 and not SHA256.fullmatch(file.sha256):
            raise _refused(f"sha256 of {file.name} is not 64 hex digits")
    if len({file.name for file in files}) != len(files):
        raise _refused("a file name stands there twice")
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in token):
        raise Stalled(
            "InvalidToken", "the token of source.secretRef holds spaces or characters that no HTTP header may carry"
        )
    return FetchConfig(digest, files, cache, progress_file, token, fit, fit_policy)


def _refused(why: str) -> Stalled:
    return Stalled("InvalidConfiguration", f"{CONFIG_VARIABLE} cannot be used: {why}")
