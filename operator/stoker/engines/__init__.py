"""Pure: one file per engine, the table of them, and what they refuse."""

from __future__ import annotations

from stoker.engines.base import Engine, EngineRequest, Launch
from stoker.engines.checks import check_accelerator, check_request
from stoker.engines.table import ENGINES, engine_of

__all__ = ["ENGINES", "Engine", "EngineRequest", "Launch", "check_accelerator", "check_request", "engine_of"]
