"""Bodies that two parsers could read differently, or that are meant to hurt the one that reads them."""

from __future__ import annotations

import gzip
import json
import zlib

from gateway.ways.registry import CHAT, CHAT_PATH, EMBED_PATH, GUEST, Fortress, dumps, refused, way
from gateway.wire import talk


def rejected(fortress: Fortress, *bodies: bytes) -> None:
    """The guest's, who might smuggle a model behind the one that is his."""
    for body in bodies:
        refused(fortress.ask(GUEST, body=body), 400)


@way("two keys called model")
def two_models(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "embed", "model": "qwen"}', b'{"model": "qwen", "model": "embed"}')


@way("model written with an escape")
def escaped_model(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "embed", "mod\\u0065l": "qwen"}', b'{"\\u006dodel": "qwen", "model": "embed"}')


@way("a second model in capitals, which engines in Go read as the first")
def model_in_capitals(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "embed", "Model": "qwen"}', b'{"MODEL": "qwen", "model": "embed"}')


@way("model as a list")
def model_as_list(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": ["embed", "qwen"]}', b'{"model": {"embed": "qwen"}}', b'{"model": 1}')


@way("no model, or one further in")
def hidden_model(fortress: Fortress) -> None:
    rejected(fortress, b'{"messages": [{"model": "qwen"}]}', b'{"Model": "qwen"}', b'{"model ": "qwen"}')


@way("NUL in the body")
def nul(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "embed\x00"}', b'{"model": "embed"}\x00{"model": "qwen"}')


@way("body in UTF-16 or UTF-32")
def utf_16(fortress: Fortress) -> None:
    rejected(fortress, *(json.dumps(CHAT).encode(name) for name in ("utf-16", "utf-16-le", "utf-32")))


@way("body in UTF-7, or with a byte-order mark")
def utf_7(fortress: Fortress) -> None:
    rejected(fortress, json.dumps(CHAT).encode("utf-7") + b"\xff", b"\xef\xbb\xbf" + dumps(CHAT))


@way("a charset that makes another body of it")
def other_charset(fortress: Fortress) -> None:
    """In UTF-7 the user is nobody, and a second model stands behind it."""
    body = b'{"model": "embed", "user": "+ACI-, +ACI-model+ACI-: +ACI-qwen"}'
    assert json.loads(body.decode("utf-7"))["model"] == "qwen"
    for charset in ("utf-7", "UTF-16", '"utf-7"', "utf-8; charset=utf-7", "cp500", "'utf-7'"):
        refused(fortress.ask(GUEST, {"content-type": f"application/json; Charset={charset}"}, body, EMBED_PATH), 400)


@way("overlong UTF-8")
def overlong(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "qw\xc1\xa5n"}', b'{"model": "\xed\xa0\x80"}')


@way("compressed body")
def compressed(fortress: Fortress) -> None:
    for coding, body in (("gzip", gzip.compress(dumps(CHAT))), ("deflate", zlib.compress(dumps(CHAT)))):
        refused(fortress.ask(GUEST, {"content-encoding": coding}, body), 400)


@way("compression bomb")
def compression_bomb(fortress: Fortress) -> None:
    refused(fortress.ask(GUEST, {"content-encoding": "gzip"}, gzip.compress(b" " * 200_000_000, 1)), 400)


@way("JSON that is nested deeply")
def deep(fortress: Fortress) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"1}")):
        depth = 200_000
        rejected(fortress, b'{"model": "embed", "x": ' + opening * depth + closing * depth + b"}")


@way("numbers that take for ever")
def numbers(fortress: Fortress) -> None:
    rejected(fortress, b'{"model": "embed", "n": ' + b"9" * 1_000_000 + b"}", b'{"model": "embed", "n": NaN}')


@way("two documents in one body")
def two_documents(fortress: Fortress) -> None:
    rejected(fortress, dumps({"model": "embed"}) + dumps(CHAT), dumps({"model": "embed"}) + b"\n" + dumps(CHAT))


@way("JSON with comments or other liberties")
def liberties(fortress: Fortress) -> None:
    rejected(fortress, b"{'model': 'embed'}", b'{"model": "embed",}', b'{/* x */"model": "embed"}', b'{model: "embed"}')


@way("a form in place of JSON")
def form(fortress: Fortress) -> None:
    body, headers = fortress.world.pod.form({"model": "qwen"})
    refused(fortress.ask(GUEST, headers, body), 400)
    refused(fortress.ask(GUEST, {"content-type": "application/x-www-form-urlencoded"}, b"model=qwen"), 400)


@way("a form with two models")
def form_with_two_models(fortress: Fortress) -> None:
    piece = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for body in (
        piece % b"embed" + piece % b"qwen" + b"--b--\r\n",
        piece % b"embed" + piece.replace(b'"model"', b"model") % b"qwen" + b"--b--\r\n",
        piece % b"embed" + piece.replace(b'"model"', b'"x"; name="model"') % b"qwen" + b"--b--\r\n",
        piece % b"embed" + b"--b--\r\n" + piece % b"qwen" + b"--b--\r\n",
    ):
        refused(fortress.ask(GUEST, headers, body, target="/v1/audio/transcriptions"), 400)


@way("body above the limit")
def too_large(fortress: Fortress) -> None:
    refused(fortress.ask(GUEST, body=b" " * 40_000_000), 413)


@way("body above the limit, in pieces of unknown number")
def too_large_in_chunks(fortress: Fortress) -> None:
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer {GUEST}\r\n\r\n"
    )
    refused(talk(fortress.port, head.encode() + b"2625a00\r\n" + b"x" * 40_000_000 + b"\r\n0\r\n\r\n"), 413)


@way("large bodies of strangers")
def large_bodies_of_strangers(fortress: Fortress) -> None:
    """Refused before they are read: Envoy's memory is looked at when all ways were tried."""
    for _ in range(5):
        refused(fortress.ask("sk-wrong", body=b" " * 20_000_000), 401)
