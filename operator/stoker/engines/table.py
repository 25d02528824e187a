"""All engines. The order is that of the documentation."""

from __future__ import annotations

from stoker.api.inference_engine import EngineType, InferenceEngineSpec
from stoker.engines.aphrodite import APHRODITE
from stoker.engines.base import Engine
from stoker.engines.custom import CUSTOM, adapted
from stoker.engines.llama_cpp import LLAMA_CPP
from stoker.engines.lm_studio import LM_STUDIO
from stoker.engines.local_ai import LOCAL_AI
from stoker.engines.ollama import OLLAMA
from stoker.engines.sglang import SGLANG
from stoker.engines.tabby_api import TABBY_API
from stoker.engines.text_generation_webui import TEXT_GENERATION_WEBUI
from stoker.engines.vllm import VLLM

ENGINES: dict[EngineType, Engine] = {
    engine.type: engine
    for engine in (
        VLLM,
        LLAMA_CPP,
        OLLAMA,
        TABBY_API,
        APHRODITE,
        LOCAL_AI,
        TEXT_GENERATION_WEBUI,
        LM_STUDIO,
        SGLANG,
        CUSTOM,
    )
}


def engine_of(spec: InferenceEngineSpec) -> Engine:
    """The engine that an InferenceEngine means: a row of the table, or what it describes itself."""
    return adapted(spec.custom) if spec.custom is not None else ENGINES[spec.type]
