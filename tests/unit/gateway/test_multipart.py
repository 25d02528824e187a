from __future__ import annotations

import email.parser
import email.policy

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway.multipart import BadForm, read_form_field

TYPE = "multipart/form-data; boundary=xx"


def form(*parts: str, tail: str = "--xx--\r\n") -> bytes:
    return ("".join(f"--xx\r\n{part}\r\n" for part in parts) + tail).encode("latin-1")


def field(name: str, value: str = "whisper", more: str = "") -> str:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}'


def read(body: bytes, content_type: str = TYPE) -> str | None:
    return read_form_field(content_type, body, "model")


def test_the_field_is_found_between_others() -> None:
    assert read(form(field("file", "\x00\xff\r\n\r\n--x", '; filename="a;b.wav"'), field("model"), field("language"))) == "whisper"  # fmt: skip
    assert read(form(field("file"))) is None
    assert read(form(field("model", "")), 'multipart/form-data; boundary="xx"') == ""


def test_what_a_real_client_sends_is_read() -> None:
    request = httpx.Request(
        "POST", "http://x", data={"model": "whisper", "a": "b"}, files={"file": ("ü \"'.wav", b"\0" * 100)}
    )
    assert read(request.read(), request.headers["content-type"]) == "whisper"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"model=whisper",
        form(field("model"), field("model")),
        form(field("model"), field("Model", "other")),
        form(field("model", more='; filename="m"')),
        form(field("model", more="; filename*=UTF-8''m")),
        form(field("model", more='; name="other"')),
        form(field("other", more="; name*=UTF-8''model")),
        form(field("other", more='; x="\\"; name="model"')),
        form(field("model", "\xff")),
        form(field("model", "x" * 2000)),
        form("Content-Disposition: attachment; name=\"model\"\r\n\r\nwhisper"),
        form("Content-Type: text/plain\r\n\r\nwhisper"),
        form("Content-Disposition : form-data; name=\"model\"\r\n\r\nwhisper"),
        form("Content-Disposition: form-data;\r\n name=\"model\"\r\n\r\nwhisper"),
        form("Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper"),
        form("no header at all"),
        form("X: " + "y" * 5000 + "\r\n" + field("model")),
        b"preamble\r\n" + form(field("model")),
        form(field("model"), tail="--xx--\r\nepilogue"),
        form(field("model"), tail=""),
        form(field("model"), tail="--xxx\r\n"),
        form(field("model")).replace(b"\r\n", b"\n"),
        form(*[field(str(number)) for number in range(100)]),
    ],
)  # fmt: skip
def test_a_form_that_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(BadForm):
        read(body)


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=xx", "multipart/form-data; boundary=", "multipart/form-data; boundary=xx; boundary=yy", "multipart/form-data; boundary=" + "x" * 71, 'multipart/form-data; boundary="x\\"x"'],
)  # fmt: skip
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadForm):
        read(form(field("model")), content_type)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for body in (
        noise,
        form(field("model")) + noise,
        form(field("file")).replace(b"whisper", noise),
        b"--xx\r\n" + noise + b"\r\n--xx--",
    ):
        try:
            found = read(body)
        except BadForm:
            continue
        # What is let through, Python's own parser reads in the same way.
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            f"Content-Type: {TYPE}\r\n\r\n".encode() + body
        )
        names = [part.get_param("name", header="content-disposition") for part in message.iter_parts()]
        assert names.count("model") == (found is not None)
