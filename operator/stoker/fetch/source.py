"""What a source's answers mean: which ones to go on with, and in which words to report the others."""

from __future__ import annotations

import email.utils
import re
import time
from urllib.parse import unquote, urlsplit

import httpx

from stoker.errors import StokerError, Waiting

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
"""A source that sends nothing for this long is asked again."""
MAX_RETRY_AFTER = 300.0
MAX_REDIRECTS = 10

_PART = re.compile(r"-(\d{5})-of-\d{5}\.gguf$", re.IGNORECASE)
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def open_client() -> httpx.Client:
    """Proxies and certificate authorities come from the environment; httpx drops Authorization when a redirect leaves the host."""
    return httpx.Client(
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
        headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "stoker-fetch"},
    )


def shown(url: str) -> str:
    """A URL fit for logs and status: without login and query, where tokens and signatures stand."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def explain_status(response: httpx.Response, url: str, *, has_token: bool) -> StokerError:
    """Every refusal can end without a change here (a file is uploaded, a licence accepted), so all of them are tried again."""
    code = response.status_code
    where = shown(url)
    if code in (401, 403) and response.headers.get("X-Error-Code") == "GatedRepo":
        step = "accept the model's terms on its page with the account of the token"
        if not has_token:
            step += ", put its token into a Secret, key `token`, and name it in source.secretRef"
        return Waiting("SourceGated", f"{where} answered {code}, a gated repository: {step}", retry_after=0)
    if code in (401, 403, 407):
        if code == 407:
            step = "the proxy asks for a login: put it into HTTPS_PROXY"
        elif has_token:
            step = "the token of source.secretRef is not accepted: check that it is valid and that its owner may read this model (gated models: accept the licence first)"
        else:
            step = "it asks for a login: put a token into a Secret, key `token`, and name it in source.secretRef"
        return Waiting("SourceUnauthorized", f"{where} answered {code}: {step}", retry_after=0)
    if code in (404, 410) and is_later_part(url):
        return Waiting(
            "ShardNotFound",
            f"{where} answered {code}: the model is split, and this part of it is missing there: put all parts beside the first",
            retry_after=0,
        )
    if code in (404, 410):
        return Waiting("SourceNotFound", f"{where} answered {code}: check source.uri", retry_after=0)
    if code == 429 or code >= 500:
        return Waiting(
            "SourceUnavailable", f"{where} answered {code}: trying again", retry_after=_retry_after(response)
        )
    return Waiting("SourceRefused", f"{where} answered {code}, which is no file: check source.uri", retry_after=0)


def is_later_part(url: str) -> bool:
    """Whether it is a part of a split model, and not the first, which the user named."""
    part = _PART.search(unquote(urlsplit(url).path))
    return part is not None and int(part[1]) > 1


def explain_error(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> StokerError:
    """Say which side of the connection to look at."""
    where = shown(url)
    detail = str(error) or type(error).__name__
    if isinstance(error, httpx.TooManyRedirects):
        return Waiting(
            "SourceRefused", f"{where} redirects more than {MAX_REDIRECTS} times: check source.uri", retry_after=0
        )
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Waiting(
            "SourceRefused", f"{where} leads to an address that cannot be read: check source.uri", retry_after=0
        )
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
        return Waiting(
            "SourceUnreachable",
            f"no connection to {where} ({detail}): check the host name, proxies and network policies",
            retry_after=0,
        )
    if isinstance(error, httpx.TimeoutException):
        return Waiting(
            "SourceInterrupted", f"{where} sent nothing for {READ_TIMEOUT:.0f} s: going on from here", retry_after=0
        )
    return Waiting(
        "SourceInterrupted", f"{where} ended the connection early ({detail}): going on from here", retry_after=0
    )


def parse_content_range(value: str) -> tuple[int, int, int | None] | None:
    """First byte, last byte and whole length, when the header says them."""
    match = CONTENT_RANGE.fullmatch(value.strip())
    if not match:
        return None
    return int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])


def explain_beginning(beginning: bytes) -> str:
    """Say what a file that is no GGUF seems to be: mostly a login page, or the pointer to the file."""
    text = beginning.lstrip()[:200].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; use the link of the file itself (on Hugging Face /resolve/, not /blob/)"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file it points to"
    if text.startswith(b"{"):
        return "it is JSON"
    if not beginning:
        return "it is empty"
    return f"it begins with {beginning[:4]!r}"


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
