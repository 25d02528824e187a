from __future__ import annotations

import json
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.models.facts import BadModelError
from stoker.models.safetensors import MAX_HEADER, bytes_needed, parse_header


def made(tensors: object) -> bytes:
    text = json.dumps(tensors).encode() if not isinstance(tensors, bytes) else tensors
    return struct.pack("<Q", len(text)) + text


def tensor(kind: str = "BF16", shape: tuple[int, ...] = (4, 8), start: int = 0, end: int = 64) -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}


def test_elements_and_bytes_are_counted_by_type() -> None:
    data = made(
        {
            "__metadata__": {"format": "pt"},
            "b": tensor("F32", (2,), 64, 72),
            "a": tensor(),
            "c": tensor("F32", (), 72, 76),
        }
    )
    header = parse_header(data)
    assert header.elements_by_type == {"BF16": 32, "F32": 3}
    assert header.bytes_by_type == {"BF16": 64, "F32": 12}
    assert (header.weights_bytes, header.data_end) == (76, len(data) + 76)


def test_the_length_comes_first_and_says_how_much_is_needed() -> None:
    data = made({"a": tensor()})
    assert bytes_needed(b"") == bytes_needed(data[:7]) == 8
    assert bytes_needed(data[:8]) == len(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<Q", MAX_HEADER + 1), "claims to have a header"),
        (struct.pack("<Q", 2**63), "claims to have a header"),
        (made(b"[]"), "no object"),
        (made(b"{{"), "cannot be read"),
        (made(b'{"a": NaN}'), "cannot be read"),
        (made(b"[" * 5000 + b"]" * 5000), "cannot be read"),
        (made(b"[" * 100_000), "more than 20000 parts"),
        (made({"a": 1}), "no object"),
        (made({"a": tensor("Q" * 20)}), "impossible type"),
        (made({"a": tensor(shape=(-1,))}), "impossible shape"),
        (made({"a": {**tensor(), "data_offsets": [0]}}), "impossible shape"),
        (made({"a": {**tensor(), "shape": [True]}}), "impossible shape"),
        (made({"a": tensor(shape=(2**40, 2**40))}), "impossible size"),
        (made({"a": tensor(end=63)}), "claims to take 63 bytes"),
        (made({"a": tensor(), "b": tensor()}), "one behind the other"),
        (made({"a": tensor(start=8, end=72)}), "one behind the other"),
    ],
)
def test_what_cannot_be_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(BadModelError, match=words):
        parse_header(data)


def _survives(data: bytes) -> None:
    try:
        if bytes_needed(data) <= len(data):
            parse_header(data)
    except BadModelError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_do_no_harm(data: bytes) -> None:
    _survives(data)
    _survives(made(data))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=4
            )
        ),
    )
)
def test_any_json_does_no_harm(document: object) -> None:
    _survives(made(document))
    _survives(made({"a": document}))


def test_a_spoiled_header_does_no_harm() -> None:
    chance = random.Random(1)
    whole = made({f"t{number}": tensor(start=64 * number, end=64 * number + 64) for number in range(8)})
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        _survives(bytes(data))


def test_hostile_json_takes_little_memory() -> None:
    entries = ",".join(f'"{number}":1' for number in range(150_000)).encode()
    wide = '"' + "😀" * 900_000 + '"'
    for text in (
        b"[" + b"{}," * 50_000 + b"{}]",
        b"{" + entries + b"}",
        b"{" + b",".join(b'"%d":{"a":1}' % number for number in range(59_000)) + b"}",
        b'{"__metadata__":{"a":' + wide.encode() + b"}}",
    ):
        data = made(text)
        tracemalloc.start()
        try:
            _survives(data)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 48 << 20


def test_a_type_that_is_newer_than_this_list_is_counted() -> None:
    header = parse_header(made({"a": tensor("F4_NEW", (32,), 0, 20)}))
    assert (header.elements_by_type, header.bytes_by_type) == ({"F4_NEW": 32}, {"F4_NEW": 20})
