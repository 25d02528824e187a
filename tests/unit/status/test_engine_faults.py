"""Lines that engines print before they end, and the reasons they become."""

from __future__ import annotations

import pytest

from stoker.status.engine_faults import find_fault

# llama-server b11434, each made by running it: a missing file, a web page, cut files, a strange architecture, bad arguments,
# a port that somebody listens on, and a cache larger than the memory (ulimit -v).
LLAMA_CPP = [
    ("E gguf_init_from_file: failed to open GGUF file '/models/nothere.gguf' (No such file or directory)", "FileNotFound"),
    ("E gguf_init_from_reader: invalid magic characters: '<!DO', expected 'GGUF'", "InvalidModel"),
    ("E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds, model is corrupted or incomplete", "InvalidModel"),
    ("E llama_model_load: error loading model: unknown model architecture: 'lamma'", "UnsupportedModel"),
    ("error: invalid argument: --no-such-flag", "InvalidArgument"),
    ('error while handling argument "-c": stoi', "InvalidArgument"),
    ("E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "PortInUse"),
    (("E ggml_aligned_malloc: insufficient memory (attempted to allocate 11520.00 MB)\nE ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 12079595520\n"
     "E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"), "ContextTooLarge"),
    (("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 144817.04 MiB on device 0: cudaMalloc failed: out of memory\n"
     "llama_model_load: error loading model: unable to allocate CUDA0 buffer\nllama_model_load_from_file_impl: failed to load model"), "DeviceOutOfMemory"),
    (("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 437944320\n"
     "llama_model_load: error loading model: unable to allocate CPU buffer"), "EngineOutOfMemory"),
    ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "DeviceNotFound"),
]  # fmt: skip

# Of vLLM, SGLang, Aphrodite and the libraries below them, as their sources and bug reports have them.
PYTHON = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 23.65 GiB", "DeviceOutOfMemory"),
    ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.00 GiB", "DeviceOutOfMemory"),
    ("ValueError: Free memory on device cuda:0 (3.1/23.65 GiB) on startup is less than desired GPU memory utilization (0.92, 21.76 GiB)", "DeviceOutOfMemory"),
    (("ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (39024). "
     "Try increasing `gpu_memory_utilization`"), "ContextTooLarge"),
    (("ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is needed, which is larger "
     "than the available KV cache memory (3.20 GiB)"), "ContextTooLarge"),
    ("User-specified max_model_len (65536) is greater than the derived max_model_len (max_position_embeddings=8192)", "ContextTooLarge"),
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "ContextTooLarge"),
    ("ValueError: Available memory on node 0 (11.24/13.59 GiB) on startup is less than desired CPU memory utilization (0.92)", "EngineOutOfMemory"),
    ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys(['Llama'])", "UnsupportedModel"),
    ("The checkpoint you are trying to load has model type `foo` but Transformers does not recognize this architecture.", "UnsupportedModel"),
    ("ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. Current capability: 75.", "UnsupportedModel"),
    ("OSError: You are trying to access a gated repo.\n401 Client Error. (Request ID: Root=1-66)\nCannot access gated repo for url https://huggingface.co/m", "SourceGated"),
    ("Access to model google/gemma-2-2b-it is restricted. You must have access to it and be authenticated to access it.", "SourceGated"),
    ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.\nInvalid credentials in Authorization header", "SourceUnauthorized"),
    ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for url", "SourceNotFound"),
    ("Error: pull model manifest: file does not exist", "SourceNotFound"),
    ("OSError: [Errno 28] No space left on device: '/models/huggingface/hub/tmp'", "DiskFull"),
    ("OSError: [Errno 98] Address already in use", "PortInUse"),
    ("[Errno 98] error while attempting to bind on address ('0.0.0.0', 8080): address already in use", "PortInUse"),
    ("RuntimeError: No CUDA GPUs are available", "DeviceNotFound"),
    ("RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`", "DeviceNotFound"),
    ("RuntimeError: Found no NVIDIA driver on your system.", "DeviceNotFound"),
    ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "DeviceNotFound"),
    ("vllm serve: error: unrecognized arguments: --no-such-flag", "InvalidArgument"),
    ("api_server.py: error: argument --dtype: invalid choice: 'float8'", "InvalidArgument"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", "InvalidModel"),
    ("RuntimeError: Cannot find any model weights with `/models/some/model`", "FileNotFound"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/models/m/config.json'", "FileNotFound"),
    ("MemoryError", "EngineOutOfMemory"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "reason"), [*LLAMA_CPP, *PYTHON], ids=lambda value: value[:40])
def test_the_last_words_of_an_engine_become_a_reason(words: str, reason: str) -> None:
    fault = find_fault(f"INFO 11-20 10:00:00 something before\n{words}\n")
    assert fault is not None
    assert fault.reason == reason


@pytest.mark.parametrize(
    "words",
    ["", "Segmentation fault (core dumped)", "RuntimeError: Engine core initialization failed. See root cause above.",
     "AssertionError", "W no API key is set", "INFO: Application shutdown complete."],
)  # fmt: skip
def test_other_words_are_not_explained_away(words: str) -> None:
    assert find_fault(words) is None
