"""Throws spoiled headers at what reads models, for as long as asked, and keeps those that reach new lines of it.

    make fuzz                    # ten minutes; new finds go to tests/fuzz/corpus
    tests/fuzz/headers.py --replay

Only BadModelError may come out, the process may never have more than 64 MiB, and no input may take longer than 10 s of CPU. An
input that breaks this is written to tests/fuzz/broken and its path is told; exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "operator")]

import gguf_files  # noqa: E402

from stoker.models import facts, fit, gguf, gguf_facts, hf_config, safetensors  # noqa: E402

CORPUS = HERE / "corpus"
MAX_MEMORY = 64 << 20
MAX_SECONDS = 10.0
LONGEST_KEPT = 4096
NUMBERS = [
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**48,
    2**62,
    2**63,
    2**64 - 1,
]
READERS = {Path(module.__file__ or "").name for module in (facts, fit, gguf, gguf_facts, hf_config, safetensors)}


def read_gguf(stream: BinaryIO) -> None:
    parser = gguf.GgufParser()
    while piece := stream.read(4096):
        header = parser.feed(piece)
        if header is not None:
            judge(gguf_facts.facts_of([header]))
            return


def read_safetensors(stream: BinaryIO) -> None:
    data = stream.read(8)
    data += stream.read(safetensors.bytes_needed(data) - 8)
    if len(data) >= safetensors.bytes_needed(data):
        header = safetensors.parse_header(data)
        judge(hf_config.facts_of({"model_type": "llama", "num_hidden_layers": 2}, [header]))


def read_config(stream: BinaryIO) -> None:
    judge(hf_config.facts_of(hf_config.parse_config(stream.read(hf_config.MAX_CONFIG + 1)), []))


def judge(found: facts.ModelFacts) -> None:
    """What is done with facts afterwards has to stand any numbers, too."""
    json.dumps(found.to_json())
    for engine in ("LlamaCpp", "VLLM"):
        for context in (None, 4096):
            request = fit.FitRequest(engine, 4, context, devices=1, available_bytes=24 << 30)
            fit.explain_misfit(fit.compute_fit(found, request))


TARGETS: dict[str, Callable[[BinaryIO], None]] = {
    "gguf": read_gguf,
    "safetensors": read_safetensors,
    "config": read_config,
}


def seeds() -> list[tuple[str, bytes]]:
    tensors = {"a": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}, "__metadata__": {"format": "pt"}}
    text = json.dumps(tensors).encode()
    config: dict[str, Any] = {
        "model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 512, "vocab_size": 100, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "quantization_config": {"quant_method": "awq", "bits": 4}, "text_config": {"num_experts": 4},
    }  # fmt: skip
    architectures = ("llama", "gemma3", "gemma3n", "qwen3next", "deepseek2", "mamba", "bert", "falcon-h1", "llama4")
    made = [
        gguf_files.header(
            {key.replace("llama.", f"{name}."): value for key, value in gguf_files.llama().items()}
            | {"general.architecture": name}
        )
        for name in architectures
    ]
    return [
        *(
            ("gguf", data)
            for data in [
                *made,
                gguf_files.model(),
                gguf_files.model(**{"split.count": 2, "llama.attention.head_count_kv": [1, 2]}),
            ]
        ),
        ("safetensors", struct.pack("<Q", len(text)) + text),
        ("config", json.dumps(config).encode()),
    ]


def replay_heavy() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # Made by another process: this one's memory shall be that of the readers alone.
        subprocess.run([sys.executable, __file__, "--write-heavy", folder], check=True)
        for path in sorted(Path(folder).iterdir()):
            with path.open("rb", buffering=0) as stream:
                wrong = attempt_stream(path.name.split("-")[0], stream)  # type: ignore[arg-type]
            if wrong:
                return f"{path.name}: {wrong}"
    return ""


def heavy() -> list[tuple[str, bytes]]:
    """As large as is allowed, and as dense as can be: what memory is bounded by."""
    one = {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
    many = json.dumps({f"t{n}": {**one, "data_offsets": [2 * n, 2 * n + 2]} for n in range(19_000)}).encode()
    dense = b'{"model_type": "llama", "a": [' + b"[1]," * 19_000 + b"1]}"
    numbers = b'{"model_type": "llama", "a": [' + b"1," * 159_000 + b"1]}"
    long = b'{"model_type": "llama", "a": "' + b"x" * 1_000_000 + b'"}'
    flags = b"".join(gguf_files.entry(f"l{n:06d}", [True] * 4096) for n in range(3000))
    lists = b"GGUF" + struct.pack("<IQQ", 3, 0, 3000) + flags
    template = gguf_files.header({"general.architecture": "llama", "tokenizer.chat_template": "x" * (30 << 20)})
    return [
        ("safetensors", struct.pack("<Q", len(many)) + many),
        ("config", dense),
        ("config", numbers),
        ("config", long),
        ("gguf", lists),
        ("gguf", template),
    ]


def mutate(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(spoiled) + 1)
        match chance.randrange(8):
            case 0:
                spoiled[at : at + 1] = chance.randbytes(1)
            case 1:
                spoiled[at : at + 8] = struct.pack("<Q", chance.choice(NUMBERS))
            case 2:
                spoiled[at : at + 4] = struct.pack("<I", chance.choice(NUMBERS) % 2**32)
            case 3:
                del spoiled[at : at + chance.choice((1, 4, 8, 64))]
            case 4:
                spoiled[at:at] = chance.randbytes(chance.choice((1, 4, 8)))
            case 5:
                start = chance.randrange(len(spoiled) + 1)
                spoiled[at:at] = spoiled[start : start + chance.choice((8, 32, 200))]
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                spoiled[at : at + 32] = other[start : start + 32]
            case _:
                spoiled[at:at] = str(chance.choice(NUMBERS)).encode()
    return bytes(spoiled)


class Coverage:
    """Lines of the readers that an input reaches, by the line before."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int, int]] = set()

    def watch(self, run: Callable[[], str]) -> tuple[bool, str]:
        """Whether it reached something new, and what came out."""
        found: set[tuple[str, int, int]] = set()

        def on_call(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
            name = frame.f_code.co_filename.rpartition("/")[2]
            if name not in READERS:
                return None
            last = 0

            def on_line(inner: FrameType, _event: str, _argument: object) -> Callable[..., Any]:
                nonlocal last
                found.add((name, last, inner.f_lineno))
                last = inner.f_lineno
                return on_line

            return on_line

        sys.settrace(on_call)
        try:
            outcome = run()
        finally:
            sys.settrace(None)
        new = not found <= self.seen
        self.seen |= found
        return new, outcome


def attempt(kind: str, data: bytes) -> str:
    """What is wrong with how an input was taken; empty when nothing is."""
    return attempt_stream(kind, io.BytesIO(data))


def attempt_stream(kind: str, stream: BinaryIO) -> str:
    began = time.process_time()
    try:
        TARGETS[kind](stream)
    except facts.BadModelError:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    if seconds > MAX_SECONDS:
        return f"it took {seconds:.1f} s"
    return f"the process has taken {peak() >> 20} MiB" if peak() > MAX_MEMORY else ""


def peak() -> int:
    """Not ru_maxrss, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def kept() -> list[tuple[str, bytes]]:
    return [(path.name.split("-")[0], path.read_bytes()) for path in sorted(CORPUS.glob("*-*"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument(
        "--inputs", type=int, default=sys.maxsize, help="with a seed: the same on a quick machine and a slow one"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--replay", action="store_true", help="the corpus only")
    parser.add_argument("--keep", action="store_true", help="write new finds to the corpus")
    parser.add_argument("--write-heavy", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write_heavy:
        for number, (kind, data) in enumerate(heavy()):
            (given.write_heavy / f"{kind}-{number}").write_bytes(data)
        return 0
    chance, coverage = random.Random(given.seed), Coverage()
    pool = [*seeds(), *kept()]
    for kind, data in pool:
        wrong = attempt(kind, data)
        if wrong:
            return report(kind, data, wrong)
    if given.replay:
        wrong = replay_heavy()
        if wrong:
            print(wrong, file=sys.stderr)
            return 1
        print(f"{len(pool)} inputs, {peak() >> 20} MiB")
        return 0
    for kind, data in pool:
        coverage.watch(partial(attempt, kind, data))
    print(f"seed {given.seed}, {len(pool)} inputs to begin with, {len(coverage.seen)} steps reached", flush=True)
    end, tried, found = time.monotonic() + given.seconds, 0, 0
    while tried < given.inputs and time.monotonic() < end:
        kind, data = chance.choice(pool)
        data = mutate(chance, data, [other for same, other in pool if same == kind])
        run = partial(attempt, kind, data)
        # Long ones would only make the corpus slow.
        new, wrong = coverage.watch(run) if len(data) <= LONGEST_KEPT else (False, run())
        tried += 1
        if wrong:
            return report(kind, data, wrong)
        if new:
            found += 1
            pool.append((kind, data))
            if given.keep:
                CORPUS.mkdir(exist_ok=True)
                (CORPUS / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
    print(
        f"{tried} inputs, {found} of them new, {len(coverage.seen)} steps reached, at most {peak() >> 20} MiB: nothing broke"
    )
    return 0


def report(kind: str, data: bytes, wrong: str) -> int:
    place = HERE / "broken"
    place.mkdir(exist_ok=True)
    path = place / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"{path}: {wrong}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
