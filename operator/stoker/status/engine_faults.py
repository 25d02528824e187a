"""What an engine's last words mean. They are all that is left of a container that has ended.

The lines are those that the engines print: llama.cpp's were produced with the pinned build, those of vLLM, SGLang and
Aphrodite stand in their sources and bug reports (tests/unit/status/test_engine_faults.py holds them).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A cause that can be told from words."""

    reason: str
    words: re.Pattern[str]
    advice: str


def _fault(reason: str, advice: str, *words: str) -> Fault:
    return Fault(reason, re.compile("|".join(words), re.IGNORECASE), advice)


# The first that fits is told, so what is said beside other troubles as their consequence comes last.
FAULTS = (
    _fault(
        "SourceGated",
        "accept the model's terms on its page with the account of the token, and name a Secret with that token in "
        "spec.source.secretRef",
        r"GatedRepoError",
        r"gated repo",
        r"Access to model \S+ is restricted",
        r"Repo model \S+ is gated",
    ),
    _fault(
        "SourceUnauthorized",
        "the token in the Secret of spec.source.secretRef is not accepted, or there is none",
        r"Invalid (user token|credentials in Authorization header)",
        r"401 Client Error",
        r"403 Client Error",
        r"RepositoryNotFoundError",
        r"pull model manifest: .*(unauthorized|401|403)",
    ),
    _fault(
        "SourceNotFound",
        "correct spec.source.uri or spec.source.revision",
        r"EntryNotFoundError",
        r"RevisionNotFoundError",
        r"404 Client Error",
        r"is not a local folder and is not a valid model identifier",
        r"pull model manifest: file does not exist",
    ),
    _fault(
        "DiskFull",
        "enlarge cache.size of the InferenceEngine, or the node's disk",
        r"No space left on device",
        r"Disk quota exceeded",
    ),
    _fault(
        "PortInUse",
        "remove the argument or variable that makes a second server listen, or hostNetwork from podTemplate",
        r"couldn'?t bind HTTP server socket",
        r"Address already in use",
        r"error while attempting to bind on address",
        r"bind: address already in use",
    ),
    _fault(
        "ContextTooLarge",
        "lower spec.contextLength, or leave it away, and the largest that fits is taken",
        r"max seq len \(?\d+\)?.{0,160}(larger than|KV cache is needed)",
        r"max_model_len \(?\d+\)? is greater than the derived",
        r"is longer than the derived context length",
        r"No available memory for the cache blocks",
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        r"failed to (allocate|initialize).{0,40}(for )?kv cache",
    ),
    _fault(
        "DeviceOutOfMemory",
        "lower spec.contextLength or spec.maxConcurrentRequests, take a smaller quantization or model, or more or larger devices; "
        "no other program may use the device",
        r"(CUDA|HIP|XPU|cudaMalloc|hipMalloc)\b.{0,40}out of memory",
        r"OutOfMemoryError: (CUDA|HIP|XPU)",
        r"unable to allocate (CUDA|ROCm|SYCL|Vulkan)\w* buffer",
        r"Free memory on device.{0,120}less than desired",
        r"Insufficient VRAM",
    ),
    _fault(
        "EngineOutOfMemory",
        "",
        r"ggml_aligned_malloc: insufficient memory",
        r"unable to allocate CPU buffer",
        r"failed to allocate (CPU )?buffer",
        r"cannot allocate memory",
        r"std::bad_alloc",
        r"\bMemoryError\b",
        r"Available memory on node.{0,80}less than desired",
        r"out of memory",
    ),
    _fault(
        "DeviceNotFound",
        "the container sees no device: check the driver and the device plugin of the node, and spec.runtimeClassName of the "
        "InferenceEngine",
        r"No CUDA GPUs are available",
        r"no CUDA-capable device is detected",
        r"no (usable )?(GPU|ROCm-capable device).{0,20}(found|detected)",
        r"Failed to infer device type",
        r"Found no NVIDIA driver",
        r"CUDA driver version is insufficient",
        r"libcuda\.so\.1: cannot open shared object",
        r"NVIDIA GPU found.{0,40}too old",
    ),
    _fault(
        "UnsupportedModel",
        "take a newer image of the engine (spec.image of the InferenceEngine), or another engine",
        r"unknown model architecture",
        r"Model architectures \[.{0,200}not supported",
        r"has no vLLM implementation",
        r"does not recognize this architecture",
        r"Unsupported architecture",
        r"Unknown quantization method",
        r"compute capability.{0,80}(not supported|is required|minimum)",
        r"Minimum capability: \d+",
    ),
    _fault(
        "InvalidModel",
        "the file is damaged or not what its name says: put the whole file there, with spec.source.sha256 if you can",
        r"data is not within the file bounds",
        r"model is corrupted or incomplete",
        r"invalid magic characters",
        r"failed to read (magic|key-value pairs|tensor info)",
        r"invalid split file",
        r"SafetensorError",
        r"Error while deserializing header",
        r"not a valid JSON file",
    ),
    _fault(
        "FileNotFound",
        "the path is not there inside the container: correct spec.source.uri, or put the file on the volume",
        r"failed to open GGUF file",
        r"failed to load GGUF split",
        r"No such file or directory",
        r"FileNotFoundError",
        r"Cannot find any model weights",
        r"does not appear to have a file named",
        r"Model path does not exist",
    ),
    _fault(
        "InvalidArgument",
        "correct spec.args of the ModelDeployment or of its InferenceEngine",
        r"error: invalid argument",
        r"error while handling argument",
        r"error: unrecognized arguments",
        r"error: argument --?[\w/, -]+: ",
        r"error: the following arguments are required",
        r"Error: unknown flag",
        r"flag provided but not defined",
    ),
)


def find_fault(words: str) -> Fault | None:
    """The cause in what was said last, if it is one of the known ones."""
    return next((fault for fault in FAULTS if fault.words.search(words)), None)
