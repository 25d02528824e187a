"""Pure: one file per engine, and the table of them."""

from __future__ import annotations

from stoker.api.inference_engine import EngineType
from stoker.engines.base import Engine, EngineRequest
from stoker.engines.llama_cpp import LLAMA_CPP

ENGINES: dict[EngineType, Engine] = {engine.type: engine for engine in (LLAMA_CPP,)}

__all__ = ["ENGINES", "Engine", "EngineRequest"]
