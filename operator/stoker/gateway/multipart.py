"""The `model` of a multipart form, read strictly: what two parsers could read differently is refused.

Nothing is decoded but the one part that is wanted; the rest, which is nearly always a long recording, is only searched.
"""

from __future__ import annotations

import re

MOST_PARTS = 64
LONGEST_HEAD = 4096
LONGEST_NAME = 1024

_CONTENT_TYPE = re.compile(
    r"""multipart/form-data[ \t]*;[ \t]*boundary=(?:"([0-9A-Za-z'()+_,./:=?-]{1,70})"|([0-9A-Za-z'+_.-]{1,70}))[ \t]*""", re.IGNORECASE
)  # fmt: skip
# One parameter after another; a quoted value holds no quote and no backslash, since parsers differ on those.
_DISPOSITION = re.compile(
    r'form-data((?:[ \t]*;[ \t]*[A-Za-z-]+\*?=(?:"[^"\\\r\n]*"|[^";\\\s]+))+)[ \t]*', re.IGNORECASE
)
_PARAMETER = re.compile(r';[ \t]*([A-Za-z-]+\*?)=(?:"([^"\\\r\n]*)"|([^";\\\s]+))')


class BadForm(ValueError):
    """Not a form that every parser reads in the same way; the message is for the client."""


def read_form_field(content_type: str, body: bytes, field: str) -> str | None:
    """The text of a form's one field of this name; None where there is none."""
    place = find_form_field(content_type, body, field)
    if place is None:
        return None
    try:
        return body[place[0] : sum(place)].decode()
    except UnicodeDecodeError:
        raise BadForm(f"the part {field} is not UTF-8") from None


def find_form_field(content_type: str, body: bytes, field: str) -> tuple[int, int] | None:
    """Where that text stands in the body: first byte and length."""
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None:
        raise BadForm("the Content-Type must read multipart/form-data; boundary=…")
    found: list[tuple[int, int]] = []
    for head, start, end in _parts(body, b"--" + (match[1] or match[2]).encode()):
        parameters = _disposition(head)
        if parameters.get("name", "").lower() != field:
            continue
        if parameters["name"] != field or any(name.startswith("filename") for name in parameters):
            raise BadForm(f"the part {field} must be a plain field of that name")
        if end - start > LONGEST_NAME:
            raise BadForm(f"the part {field} is too long")
        found.append((start, end - start))
    if len(found) > 1:
        raise BadForm(f"there is more than one part {field}")
    return found[0] if found else None


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, int, int]]:
    """Each part's head, and where its content begins and ends. Nothing may stand before the first delimiter and after the last."""
    if not body.startswith(delimiter + b"\r\n"):
        raise BadForm("the body does not begin with its boundary")
    parts: list[tuple[bytes, int, int]] = []
    start = len(delimiter) + 2
    while True:
        end = body.find(b"\r\n" + delimiter, start)
        if end < 0:
            raise BadForm("the body ends before its last boundary")
        # Searched to the end of the part only: a blank line of the next one is not this one's.
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end < 0 or head_end - start > LONGEST_HEAD:
            raise BadForm("a part has no head that ends within 4 KiB")
        parts.append((body[start:head_end], head_end + 4, end))
        if len(parts) > MOST_PARTS:
            raise BadForm(f"there are more than {MOST_PARTS} parts")
        start = end + 2 + len(delimiter)
        tail = body[start : start + 4]
        if tail[:2] == b"--":
            if body[start + 2 :] not in (b"", b"\r\n"):
                raise BadForm("something follows the last boundary")
            return parts
        if tail[:2] != b"\r\n":
            raise BadForm("a line begins with the boundary and is none")
        start += 2


def _disposition(head: bytes) -> dict[str, str]:
    """Parameters of the one Content-Disposition."""
    values: list[str] = []
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip() or b"\n" in line or b"\r" in line or b"\0" in line:
            raise BadForm("a part's head holds a line that is no header")
        if name.lower() == b"content-disposition":
            values.append(value.strip().decode("utf-8", "replace"))
    match = _DISPOSITION.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise BadForm("a part has no Content-Disposition that can be read in one way only")
    parameters: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(match[1]):
        # name* is another way to write a name, which only some parsers read.
        if name.lower() == "name*" or name.lower() in parameters:
            raise BadForm("a part has no Content-Disposition that can be read in one way only")
        parameters[name.lower()] = quoted or token
    return parameters
