"""The header of a GGUF file, read while its bytes arrive.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The file comes from anywhere, so every count and size in
it is checked before it is used, what nobody asks for (vocabularies of megabytes) is passed over without being kept, and
memory stays at one piece of input plus the few values that are wanted.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass, field

from stoker.models.facts import BadModelError

MAGIC = b"GGUF"
MAX_HEADER = 64 << 20
"""The largest vocabularies of today make headers of some 20 MB."""
MAX_ENTRIES = 65_536
MAX_TENSORS = 262_144
MAX_KEY = 65_535
MAX_KEPT_TEXT = 1 << 20
"""Chat templates are the longest texts that are wanted; of a longer one nothing is known but that it is there."""
MAX_KEPT_ARRAY = 4096
MAX_KEPT = 4 << 20
"""Of everything together, in bytes of the file; Python's objects are up to ten times as large."""
MAX_TENSOR_NAME = 1024
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 48

Value = int | float | bool | str | tuple[int | float | bool, ...]

# Value type → struct format; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize("<" + code) for kind, code in _SCALARS.items()}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""Name, elements in a block, bytes of a block."""
NEWER_TYPES = "unknown"
"""What types are called that this code does not know."""


@dataclass
class GgufHeader:
    """What a header says, as far as it is wanted."""

    version: int
    metadata: dict[str, Value] = field(default_factory=dict)
    vocabulary_size: int = 0
    tensors: int = 0
    parameters: int = 0
    bytes_by_type: dict[str, int] = field(default_factory=dict)
    """Tensors of types newer than this code count by where they lie: as NEWER_TYPES, without the last of them."""
    data_end: int = 0
    """Least length of the whole file, if it is complete."""
    size: int = 0
    """Length of the header."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors in this file."""
        return sum(self.bytes_by_type.values())


class GgufParser:
    """Takes the beginning of a file in pieces of any size, until the header is whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._taken = 0
        self._skip = 0
        self._kept = 0
        self._header: GgufHeader | None = None
        self._run = self._parse()
        next(self._run)

    def feed(self, piece: bytes) -> GgufHeader | None:
        """The header, once all of it has arrived; BadModelError when this is no GGUF or an impossible one."""
        if self._header is not None:
            return self._header
        if self._skip > len(piece):
            self._skip -= len(piece)
            self._pass(len(piece))
            return None
        if self._skip:
            self._pass(self._skip)
            piece, self._skip = piece[self._skip :], 0
        self._buffer = self._buffer[self._at :] + piece if self._at < len(self._buffer) else piece
        self._at = 0
        try:
            self._run.send(None)
        except StopIteration as done:
            self._header = done.value
        return self._header

    def _parse(self) -> Generator[None, None, GgufHeader]:
        yield
        yield from self._need(24)
        magic, version = self._buffer[:4], int.from_bytes(self._buffer[4:8], "little")
        if magic != MAGIC:
            raise BadModelError(f"it begins with {magic!r}, not with GGUF")
        if version not in (2, 3):
            big = int.from_bytes(self._buffer[4:8], "big") in (2, 3)
            raise BadModelError("it is a big-endian GGUF" if big else f"its GGUF version is {version}, not 2 or 3")
        tensors, entries = struct.unpack_from("<QQ", self._buffer, 8)
        self._advance(24)
        if entries > MAX_ENTRIES or tensors > MAX_TENSORS:
            raise BadModelError(f"it claims to have {tensors} tensors and {entries} metadata entries")
        header = GgufHeader(version, tensors=tensors)
        for _ in range(entries):
            yield from self._entry(header)
        offset_end = 0
        for _ in range(tensors):
            offset_end = max(offset_end, (yield from self._tensor(header)))
        if NEWER_TYPES in header.bytes_by_type:
            header.bytes_by_type[NEWER_TYPES] = max(0, offset_end - header.weights_bytes)
        header.size = self._taken
        alignment = header.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise BadModelError(f"its alignment is {alignment!r}")
        header.data_end = (-(-header.size // alignment) * alignment + offset_end) if offset_end else header.size
        return header

    def _entry(self, header: GgufHeader) -> Generator[None, None, None]:
        key = yield from self._text(MAX_KEY, "a key")
        yield from self._need(4)
        kind = self._integer(4)
        wanted = _is_wanted(key or "", kind)
        if kind == _ARRAY:
            yield from self._array(header, key or "", wanted)
        elif kind == _STRING:
            text = yield from self._text(MAX_HEADER, f"the text of {key}", keep=MAX_KEPT_TEXT if wanted else 0)
            if wanted:
                self._keep(header, key or "", text or "", len(text or ""))
        elif kind in _SCALARS:
            yield from self._need(_SIZES[kind])
            value = struct.unpack_from("<" + _SCALARS[kind], self._buffer, self._at)[0]
            self._advance(_SIZES[kind])
            if wanted:
                self._keep(header, key or "", value, _SIZES[kind])
        else:
            raise BadModelError(f"the value of {key} has the unknown type {kind}")

    def _array(self, header: GgufHeader, key: str, wanted: bool) -> Generator[None, None, None]:
        yield from self._need(12)
        kind, count = self._integer(4), self._integer(8)
        if key == "tokenizer.ggml.tokens":
            header.vocabulary_size = count
        if kind in _SCALARS:
            size = _SIZES[kind] * count
            self._require_room(size, f"the array {key}")
            if wanted and count <= MAX_KEPT_ARRAY:
                yield from self._need(size)
                self._keep(header, key, struct.unpack_from(f"<{count}{_SCALARS[kind]}", self._buffer, self._at), size)
                self._advance(size)
            else:
                yield from self._pass_over(size)
        elif kind == _STRING:
            self._require_room(8 * count, f"the array {key}")
            yield from self._pass_strings(count, key)
        else:
            raise BadModelError(f"the array {key} holds values of type {kind}, which no model has")

    def _keep(self, header: GgufHeader, key: str, value: Value, size: int) -> None:
        # As in llama.cpp a key that comes twice is an error: which of the two an engine takes is anybody's guess.
        if key in header.metadata:
            raise BadModelError(f"the key {key} stands there twice")
        self._kept += len(key) + size
        if self._kept > MAX_KEPT:
            raise BadModelError("its metadata is too large")
        header.metadata[key] = value

    def _pass_strings(self, count: int, key: str) -> Generator[None, None, None]:
        """A vocabulary has some hundred thousand: this loop is most of the work."""
        unpack = struct.Struct("<Q").unpack_from
        left = count
        while left:
            buffer, at, end = self._buffer, self._at, len(self._buffer) - 8
            while left and at <= end:
                length = unpack(buffer, at)[0]
                at += 8 + length
                left -= 1
                if length > MAX_HEADER:
                    raise BadModelError(f"a text in {key} claims to have {length} bytes")
            past = max(0, at - len(buffer))
            self._advance(at - self._at - past)
            yield from self._pass_over(past)
            if left:
                yield from self._need(8)

    def _tensor(self, header: GgufHeader) -> Generator[None, None, int]:
        yield from self._text(MAX_TENSOR_NAME, "a tensor's name", keep=0)
        yield from self._need(4)
        dimensions = self._integer(4)
        if dimensions > MAX_DIMENSIONS:
            raise BadModelError(f"a tensor claims to have {dimensions} dimensions")
        yield from self._need(8 * dimensions + 12)
        elements = 1
        row = 1
        for number in range(dimensions):
            length = self._integer(8)
            row = length if number == 0 else row
            elements *= length
            if not 0 < length <= MAX_ELEMENTS or elements > MAX_ELEMENTS:
                raise BadModelError("a tensor claims to have an impossible size")
        kind, offset = self._integer(4), self._integer(8)
        if offset > MAX_ELEMENTS:
            raise BadModelError("a tensor claims to lie at an impossible place")
        header.parameters += elements
        if kind not in TENSOR_TYPES:
            header.bytes_by_type.setdefault(NEWER_TYPES, 0)
            return offset
        name, block, size = TENSOR_TYPES[kind]
        if row % block:
            raise BadModelError(f"a tensor of type {name} has rows of {row} elements, which are no whole blocks")
        weight = elements // block * size
        header.bytes_by_type[name] = header.bytes_by_type.get(name, 0) + weight
        return offset + weight

    def _text(self, at_most: int, what: str, keep: int = MAX_KEY) -> Generator[None, None, str | None]:
        """A string; None when it is longer than what is to be kept."""
        yield from self._need(8)
        length = self._integer(8)
        if length > at_most:
            raise BadModelError(f"{what} claims to have {length} bytes")
        self._require_room(length, what)
        if length > keep:
            yield from self._pass_over(length)
            return None
        yield from self._need(length)
        text = self._buffer[self._at : self._at + length].decode("utf-8", "replace")
        self._advance(length)
        return text

    def _integer(self, size: int) -> int:
        value = int.from_bytes(self._buffer[self._at : self._at + size], "little")
        self._advance(size)
        return value

    def _need(self, count: int) -> Generator[None, None, None]:
        while len(self._buffer) - self._at < count:
            yield

    def _pass_over(self, count: int) -> Generator[None, None, None]:
        here = min(count, len(self._buffer) - self._at)
        self._advance(here)
        if count > here:
            # At the end of the buffer: `feed` drops what comes, and goes on here.
            self._buffer, self._at = b"", 0
            self._skip = count - here
            self._require_room(self._skip, "the header")
            yield
        elif count:
            self._require_room(0, "the header")

    def _advance(self, count: int) -> None:
        self._at += count
        self._pass(count)

    def _pass(self, count: int) -> None:
        self._taken += count

    def _require_room(self, count: int, what: str) -> None:
        if self._taken + count > MAX_HEADER:
            raise BadModelError(f"{what} would make the header longer than {MAX_HEADER >> 20} MiB")


def _is_wanted(key: str, kind: int) -> bool:
    """Numbers about the model and the few texts that are used; a vocabulary is only counted."""
    if kind == _STRING:
        return key in ("general.architecture", "general.name", "general.license", "tokenizer.chat_template")
    return len(key) <= 256 and not key.startswith("tokenizer.")
