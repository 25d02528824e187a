"""The `model` of a body, read so that no engine can read it differently. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from stoker.gateway import openai_errors as errors
from stoker.gateway.decision import Request
from stoker.gateway.multipart import BadForm, read_form_field
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.usage_filter import LONGEST_TAIL

READ_HERE = frozenset({"model", "stream", "stream_options"})
"""Engines in Go take members for these that are written with other letters."""
UTF_8 = frozenset(("utf-8", "utf8", "us-ascii", "ascii"))
_CHARSET = re.compile(r"""charset\s*\*?\s*=\s*["']?([^"';,\s]*)""")


class BadBody(Exception):
    """The body does not name a model."""

    def __init__(self, problem: ApiProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _TwoModels(dict[str, Any]):
    """An object with two members called model."""


def read_json_model(request: Request) -> str:
    """The `model` of a JSON body, which stays with the request for those who need more of it."""
    if "=" in request.content_type and not UTF_8.issuperset(_CHARSET.findall(request.content_type.lower())):
        # An engine may believe it, and then reads other letters than we do: in UTF-7 plain ones can stand for others.
        _bad("The request body is in another charset; send JSON in UTF-8.")
    request.document = read_document(request.body)
    name = request.document.get("model")
    if name is None:
        _bad("You must provide a `model`; GET /v1/models lists yours.", "missing_model", "model")
    for member in request.document:
        if not (member.isascii() and member.islower()) and (plain := member.casefold()) in READ_HERE:
            code = "duplicate_model" if plain == "model" else "invalid_body"
            _bad(f"Write `{plain}` in lower case, and once.", code, plain)
    if not isinstance(name, str):
        _bad("`model` must be a string.", "invalid_model", "model")
    if not isinstance(request.document.get("stream"), bool | None):
        # Some engines take 1 or "true" for it, and then stream what is not counted as a stream.
        _bad("`stream` must be true or false.", "invalid_body", "stream")
    return name


def is_given_twice(body: bytes, member: str) -> bool:
    """Whether an object that has been read has two members of this name: of texts and numbers the last counts everywhere, but engines in
    Go lay objects on top of each other."""
    if b"\\u" not in body and body.count(b'"%b"' % member.encode()) < 2:
        return False
    try:
        members: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    except RecursionError:
        return True
    return sum(name == member for name, _ in members) > 1


def read_document(body: bytes) -> dict[str, Any]:
    """A JSON body; BadBody for whatever another parser might read differently, so that the engine cannot."""
    if body[-LONGEST_TAIL:].isspace():
        # Envoy looks for the end of the object there, to add something to it.
        _bad("The request body ends in too much white space.")
    # Two members of one name are rare and parsers differ on them. Without a second "model" and without \u, by which
    # a name can be written differently, there cannot be two, and the fast parser does. It refuses what the careful one does, and
    # that one has words for it.
    if b"\\u" not in body and body.count(b'"model"') < 2:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _read_carefully(body)
        if isinstance(document, dict):
            return document
    return _read_carefully(body)


def _read_carefully(body: bytes) -> dict[str, Any]:
    if not body:
        _bad("The request body is empty; send a JSON object with a `model`.")
    if b"\0" in body:
        _bad("The request body holds NUL bytes; send JSON in UTF-8, not compressed.")
    try:
        document = _CAREFUL.decode(body.decode())
    except UnicodeDecodeError:
        _bad("The request body is not UTF-8; send JSON in UTF-8, not compressed.")
    except RecursionError:
        _bad("The request body is nested too deeply.")
    except ValueError as error:
        _bad(f"The request body is not valid JSON: {error}.")
    if not isinstance(document, dict):
        _bad("The request body is not a JSON object.", "invalid_body")
    if type(document) is _TwoModels:
        _bad("The request body has more than one `model`.", "duplicate_model", "model")
    return document


def read_form_model(request: Request) -> str:
    """The `model` of a form."""
    try:
        name = read_form_field(request.content_type, request.body, "model")
    except BadForm as bad:
        _bad(f"The request body is not a form that can be routed: {bad}.", "invalid_body")
    if name is None:
        _bad(
            "You must provide a `model`, as a field of the form; GET /v1/models lists yours.", "missing_model", "model"
        )
    return name


def _bad(message: str, code: str = "invalid_json", param: str | None = None) -> NoReturn:
    raise BadBody(errors.bad_body(message, code, param)) from None


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs) and sum(name == "model" for name, _ in pairs) > 1:
        return _TwoModels(members)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_CAREFUL = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object_of)
