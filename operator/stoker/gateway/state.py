"""The gateway's files: written whole or not at all, and read back by a process that has just started.

The relay writes routes, keys and endpoints here when they change; the policy process only reads. So a policy process that was
killed decides again in a fraction of a second, whether the API server answers or not.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from stoker.gateway.config import ConfigRejected, parse_endpoints, parse_key_sets, parse_keys, parse_routes
from stoker.gateway.table import Key, Routes, Table, build_table

logger = logging.getLogger(__name__)

ROUTES_FILE = "routes.json"
KEYS_FILE = "keys.json"
ENDPOINTS_FILE = "endpoints.json"
"""Ready replicas, by cluster."""
KEY_SETS_FILE = "key_sets.json"
"""Public keys of issuers, by address; not there where no tokens are let in."""


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Put the content in place by a rename, unless it is there already; a reader sees the old file or the new one."""
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return True


class StateReader:
    """The table of decisions, as the state files have it; files that did not change are not parsed again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, bytes] = {}
        self._routes: Routes | None = None
        self._keys: tuple[Key, ...] | None = None
        self._key_sets: dict[str, object] = {}
        self.table: Table | None = None
        """None until the first configuration is there: then nothing is let in."""
        self.endpoints: dict[str, tuple[str, ...]] = {}
        """Ready replicas by cluster. They come and go more often than the rest, so no table is made for them."""
        self.generation = 0
        """Counts the configurations taken over."""

    def load(self) -> bool:
        """Take over what changed; whether anything did. A file that makes no sense leaves the old configuration in force."""
        changed = {name for name in (ROUTES_FILE, KEYS_FILE, ENDPOINTS_FILE, KEY_SETS_FILE) if self._take(name)}
        if not changed or self._routes is None or self._keys is None:
            return False
        if self.table is None or changed != {ENDPOINTS_FILE}:
            self.table = build_table(self._routes, self._keys, self._key_sets)
            self.generation += 1
        return True

    def _take(self, name: str) -> bool:
        try:
            text = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return False
        if self._texts.get(name) == text:
            return False
        self._texts[name] = text
        try:
            if name == ROUTES_FILE:
                self._routes = parse_routes(text)
            elif name == KEYS_FILE:
                self._keys = parse_keys(text)
            elif name == KEY_SETS_FILE:
                self._key_sets = parse_key_sets(text)
            else:
                self.endpoints = parse_endpoints(text)
        except ConfigRejected as error:
            logger.warning("%s is not taken over: %s", self._folder / name, error)
            return False
        return True
