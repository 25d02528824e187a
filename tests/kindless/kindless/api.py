"""A Kubernetes client of the size that making a cluster needs: JSON over one TLS connection per call."""

import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import KindlessError

JsonObject = dict[str, Any]


class ApiError(KindlessError):
    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:300]}")
        self.status = status


class Api:
    """Speaks as the cluster's administrator."""

    def __init__(self, endpoint: str, pki: Path) -> None:
        self.address = urlsplit(endpoint)
        self.tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self.tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def call(self, method: str, path: str, body: JsonObject | None = None, timeout_seconds: float = 10) -> str:
        connection = http.client.HTTPSConnection(
            self.address.hostname or "", self.address.port, timeout=timeout_seconds, context=self.tls
        )
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiError(method, path, response.status, text)
        return text

    def get(self, path: str) -> JsonObject:
        found: JsonObject = json.loads(self.call("GET", path))
        return found

    def create(self, path: str, body: JsonObject) -> None:
        """Create, and be content where it exists already."""
        try:
            self.call("POST", path, body)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise

    def answers(self, path: str) -> bool:
        try:
            self.call("GET", path, timeout_seconds=5)
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True


def wait_until(check: Callable[[], bool], what: str, limit_seconds: float, alive: Callable[[], bool]) -> None:
    """Poll a condition of something outside this process, and give up at once when that has ended."""
    deadline = time.monotonic() + limit_seconds
    while not check():
        if not alive():
            raise KindlessError(f"the cluster's processes ended while waiting for {what}")
        if time.monotonic() > deadline:
            raise KindlessError(f"{what} not ready in {limit_seconds:.0f} s")
        time.sleep(0.1)
