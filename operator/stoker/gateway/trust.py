"""How the gateway's own calls go out: they trust the public authorities, and those of its configuration."""

from __future__ import annotations

import os
from pathlib import Path

import certifi
import httpx

from stoker.trust import tls_context


def trusted_authorities(own: str) -> str:
    """For Envoy, as PEM: what SSL_CERT_FILE names, else what certifi brings, and these."""
    public = Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_text()
    return f"{public}\n{own}"


class Outgoing:
    """The relay's HTTP client, made anew when it has to trust others."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._own: str | None = None
        self._client: httpx.AsyncClient | None = None

    def client(self, own: str) -> httpx.AsyncClient:
        """One that trusts these beside the public authorities; requests that run on an earlier one are not disturbed."""
        if self._client is None or own != self._own:
            self._own = own
            self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False, verify=tls_context(own))
        return self._client
