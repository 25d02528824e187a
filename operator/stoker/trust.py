"""Whose certificates are believed where the gateway's parts call others: the public authorities, and those of its configuration."""

from __future__ import annotations

import logging
import ssl

import httpx

logger = logging.getLogger(__name__)


def tls_context(own: str) -> ssl.SSLContext:
    """For httpx: its own authorities, and these, as PEM; without those that cannot be read."""
    context = httpx.create_ssl_context()
    if own:
        try:
            context.load_verify_locations(cadata=own)
        except (ssl.SSLError, ValueError, TypeError) as error:
            logger.warning("the configuration's certificate authorities are not taken over: %s", error)
    return context
