"""Whose certificates are trusted where the gateway calls others: the public authorities, and those of its own configuration."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import certifi
import httpx

logger = logging.getLogger(__name__)


def public_authorities() -> bytes:
    """As PEM: what SSL_CERT_FILE names, else what certifi brings."""
    return Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_bytes()


def trusted_authorities(own: str) -> str:
    """All of them, as PEM."""
    return f"{public_authorities().decode()}\n{own}"


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
            self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False, verify=self._context(own))
        return self._client

    @staticmethod
    def _context(own: str) -> ssl.SSLContext:
        context = httpx.create_ssl_context()
        if own:
            try:
                context.load_verify_locations(cadata=own)
            except (ssl.SSLError, ValueError) as error:
                logger.warning("the configuration's certificate authorities are not taken over: %s", error)
        return context
