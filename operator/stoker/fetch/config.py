"""What the pod template tells the downloader, as JSON in STOKER_FETCH."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stoker.errors import Stalled
from stoker.models.fit import FitRequest, parse_fit_request

Look = Literal["Download", "Files", "Folder", "Repository"]
DEFAULT_HUB = "https://huggingface.co"
CONFIG_VARIABLE = "STOKER_FETCH"
TOKEN_VARIABLE = "STOKER_FETCH_TOKEN"
"""Kept apart from the configuration, because it comes from a Secret."""
DEFAULT_CACHE = "/models"
DEFAULT_PROGRESS_FILE = "/run/stoker/progress.json"

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
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
    look: Look = "Download"
    """Where the model is, if it is not to be brought: only its headers are read then."""
    place: str = ""
    """Folder of the files, or of the model (Files, Folder); ORG/REPO (Repository)."""
    revision: str = "main"
    hub: str = DEFAULT_HUB
    hold: bool = False
    """The engine cannot be started before the operator has chosen its context by what the header says."""

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
        look: Look = data.get("look") or "Download"
        files = tuple(
            SourceFile(str(file["name"]), str(file.get("url") or ""), str(file.get("sha256") or "").lower())
            for file in data.get("files") or ()
        )
        place, revision = str(data.get("place") or ""), str(data.get("revision") or "main")
        hub = str(data.get("hub") or DEFAULT_HUB).rstrip("/")
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
    if look not in get_args(Look):
        raise _refused(f"look {look!r} is unknown")
    if not files and look in ("Download", "Files"):
        raise _refused("files is empty")
    if look in ("Files", "Folder") and not place.startswith("/"):
        raise _refused(f"place {place!r} is no path")
    if look == "Repository" and not (REPOSITORY.fullmatch(place) and hub.startswith(("http://", "https://"))):
        raise _refused(f"place {place!r} is no repository, or hub {hub!r} no address")
    for file in files:
        if file.name in ("", ".", "..") or "/" in file.name or "\0" in file.name or file.name.startswith(".stoker"):
            raise _refused(f"{file.name!r} is not a plain file name")
        if look == "Download" and not file.url.startswith(("http://", "https://")):
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
    hold = data.get("hold") is True
    return FetchConfig(digest, files, cache, progress_file, token, fit, fit_policy, look, place, revision, hub, hold)


def _refused(why: str) -> Stalled:
    return Stalled("InvalidConfiguration", f"{CONFIG_VARIABLE} cannot be used: {why}")
