"""Engines and models that do not go together, for the unit tests and for a real API server."""

from __future__ import annotations

from typing import Any

GGUF = {"uri": "https://host/m.gguf"}
AWQ = {"uri": "hf://org/model-AWQ"}
PLAIN = {"uri": "hf://org/model"}
EXL3 = {"uri": "pvc://weights/model-exl3"}
NVIDIA = {"vendor": "NVIDIA"}
CPU = {"vendor": "None"}

# engine, accelerator, the model's fields, reason, what the message must tell
COMBINATIONS: list[tuple[str, dict[str, Any], dict[str, Any], str, tuple[str, ...]]] = [
    ("VLLM", NVIDIA, {"source": GGUF}, "UnsupportedFormat", ("vllm-gguf-plugin", "LlamaCpp")),
    ("TabbyAPI", NVIDIA, {"source": GGUF, "contextLength": 4096}, "UnsupportedFormat", ("TabbyAPI cannot serve GGUF", "LlamaCpp")),
    ("LlamaCpp", NVIDIA, {"source": AWQ}, "UnsupportedFormat", ("llama.cpp cannot serve AWQ", "VLLM")),
    ("Ollama", NVIDIA, {"source": EXL3}, "UnsupportedFormat", ("EXL3", "TabbyAPI")),
    ("TabbyAPI", NVIDIA, {"source": {"uri": "pvc://w/m-exl2"}}, "UnsupportedFormat", ("exl2-checkpoint", "spec.image")),
    ("Aphrodite", NVIDIA, {"source": {"uri": "pvc://w/m-exl2"}}, "UnsupportedFormat", ("convert the model to EXL3", "TabbyAPI")),
    ("LlamaCpp", CPU, {"source": {"uri": "ollama://qwen3"}}, "UnsupportedSource", ("Ollama library", "Ollama")),
    ("LlamaCpp", CPU, {"source": {"uri": "hf://org/m-GGUF"}}, "UnsupportedSource", ("whole repository", "one GGUF file")),
    ("TabbyAPI", NVIDIA, {"source": {"uri": "hf://org/m-exl3"}}, "UnsupportedSource", ("a folder of files", "Aphrodite")),
    ("LMStudio", CPU, {"source": {"uri": "pvc://w/folder"}, "format": "GGUF"}, "UnsupportedSource", ("one GGUF file",)),
    ("TabbyAPI", {"vendor": "AMD"}, {"source": EXL3}, "UnsupportedAccelerator", ("AMD", "NVIDIA", "Aphrodite")),
    ("LMStudio", {"vendor": "Intel"}, {"source": GGUF}, "UnsupportedAccelerator", ("Intel", "LlamaCpp")),
    ("VLLM", {**NVIDIA, "computeCapability": "6.1"}, {"source": AWQ}, "UnsupportedAccelerator", ("7.5", "6.1")),
    ("TabbyAPI", {**NVIDIA, "computeCapability": "7.5"}, {"source": EXL3}, "UnsupportedAccelerator", ("8.0", "7.5")),
    ("LocalAI", CPU, {"source": PLAIN}, "UnsupportedAccelerator", ("by vLLM", "LlamaCpp")),
    ("TabbyAPI", NVIDIA, {"source": EXL3, "task": "Embedding"}, "UnsupportedTask", ("Chat, Completion",)),
    ("Ollama", CPU, {"source": GGUF, "task": "Rerank"}, "UnsupportedTask", ("LlamaCpp",)),
    ("Ollama", CPU, {"source": {"uri": "ollama://qwen3"}}, "FieldRequired", ("spec.contextLength", "4,096")),
    ("LlamaCpp", NVIDIA, {"source": GGUF, "tensorParallelSize": 2}, "UnsupportedField", ("spec.tensorParallelSize", "spec.gpus")),
    ("LlamaCpp", NVIDIA, {"source": GGUF, "toolCallParser": "hermes"}, "UnsupportedField", ("spec.toolCallParser", "SGLang")),
    ("VLLM", NVIDIA, {"source": AWQ, "toolCallParser": "qwen25"}, "UnsupportedField", ("'qwen25'", "hermes")),
    ("SGLang", NVIDIA, {"source": AWQ, "kvCacheType": "INT4"}, "UnsupportedField", ("FP8, not INT4", "VLLM")),
    ("VLLM", NVIDIA, {"source": AWQ, "quantization": "FP8"}, "UnsupportedField", ("AWQ already",)),
    ("VLLM", NVIDIA, {"source": PLAIN, "quantization": "INT4"}, "UnsupportedField", ("not INT4", "TextGenerationWebUI")),
    ("VLLM", NVIDIA, {"source": AWQ, "gpus": 0}, "UnsupportedField", ("gpus: 0", "needs a device")),
    ("LlamaCpp", CPU, {"source": GGUF, "gpus": 1}, "UnsupportedField", ("computes on the CPU",)),
    ("VLLM", CPU, {"source": PLAIN, "gpuMemoryUtilizationPercent": 80}, "UnsupportedField", ("runs without a device", "limits.memory")),
    ("VLLM", CPU, {"source": PLAIN, "tensorParallelSize": 2}, "UnsupportedField", ("= 2 on 0 devices",)),
    ("Ollama", NVIDIA, {"source": GGUF, "contextLength": 4096, "chatTemplate": {"configMapRef": {"name": "t"}}},
     "UnsupportedField", ("Go templates", "LlamaCpp")),
    ("LocalAI", NVIDIA, {"source": GGUF, "aliases": ["gpt-4o"]}, "UnsupportedField", ("a second time", "LlamaCpp")),
    ("LlamaCpp", NVIDIA, {"source": GGUF, "adapters": [{"name": "a", "source": {"uri": "hf://o/a"}}]},
     "UnsupportedField", ("pvc://CLAIM/FILE.gguf", "SGLang")),
    ("SGLang", NVIDIA, {"source": PLAIN, "adapters": [{"name": "a", "source": {"uri": "hf://o/a"}}]},
     "UnsupportedField", ("rename it to smol:a",)),
    ("LocalAI", NVIDIA, {"source": GGUF, "dtype": "Float16"}, "UnsupportedField", ("by llama.cpp", "spec.dtype")),
    ("LocalAI", NVIDIA, {"source": GGUF, "kvCacheType": "FP8"}, "UnsupportedField", ("cannot be FP8", "INT8")),
    ("LocalAI", NVIDIA, {"source": {"uri": "hf://org/m-GGUF"}}, "UnsupportedSource", ("the one GGUF file",)),
    ("SGLang", NVIDIA, {"source": PLAIN, "aliases": ["qwen3:8b"]}, "UnsupportedField", ("the alias qwen3:8b", "VLLM")),
    ("VLLM", NVIDIA, {"source": PLAIN, "task": "Image"}, "UnsupportedTask", ("task Image", "LocalAI")),
    ("LocalAI", NVIDIA, {"source": {**PLAIN, "revision": "v1"}, "task": "Image"}, "UnsupportedField", ("spec.source.revision",)),
    ("LocalAI", NVIDIA, {"source": PLAIN, "task": "Speech"}, "UnsupportedModel", ("which backend speaks", "Qwen3-TTS")),
    ("LlamaCpp", CPU, {"source": GGUF, "task": "Transcription"}, "FieldRequired", ("--mmproj", "VLLM")),
    ("VLLM", NVIDIA, {"source": PLAIN, "task": "Speech"}, "UnsupportedTask", ("task Speech", "LocalAI")),
    ("Ollama", NVIDIA, {"source": GGUF, "contextLength": 4096, "speculativeDecoding": {"method": "NGram"}},
     "UnsupportedField", ("spec.speculativeDecoding", "LlamaCpp")),
    ("LlamaCpp", NVIDIA, {"source": GGUF, "speculativeDecoding": {"method": "DraftModel", "draft": {"uri": "hf://o/small"}}},
     "UnsupportedField", ("pvc://CLAIM/FILE.gguf",)),
    ("VLLM", NVIDIA, {"source": AWQ, "args": ["--tensor_parallel=2"]}, "ManagedArgument", ("--tensor-parallel", "spec.gpus")),
    ("SGLang", NVIDIA, {"source": AWQ, "args": ["--api-key", "x"]}, "ManagedArgument", ("--api-key", "ApiKey")),
    ("TabbyAPI", NVIDIA, {"source": EXL3, "contextLength": 4096, "args": ["--config=x"]}, "ManagedArgument", ("--config",)),
    ("Ollama", CPU, {"source": GGUF, "contextLength": 4096, "env": [{"name": "OLLAMA_HOST", "value": "x"}]},
     "ManagedArgument", ("OLLAMA_HOST",)),
    ("Ollama", CPU, {"source": GGUF, "contextLength": 4096, "args": ["serve"]}, "UnsupportedField", ("takes no arguments",)),
]  # fmt: skip
