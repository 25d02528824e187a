"""Fixtures of the tests on a real control plane."""

from __future__ import annotations

from integration.api_server import api_server

__all__ = ["api_server"]
