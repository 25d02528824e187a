"""Model sources: from the URI a user wrote to the files, the cache folder and the place in a volume."""

from __future__ import annotations

import json
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from stoker.api.model_deployment import ModelSource
from stoker.api.names import short_digest
from stoker.api.resolved import ParsedSource
from stoker.errors import Stalled

MAX_PARTS = 256

_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5})\.gguf")
_CLAIM_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\]")

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,2}(:[A-Za-z0-9._-]+)?")
_SINGLE_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".zip", ".tar", ".gz")

_SCHEMES = "it must start with https://, http://, hf://, ollama://, pvc:// or file://"
_USE_HTTPS = "use https://huggingface.co/ORG/REPO/resolve/main/FILE.gguf, or pvc:// or file:// for weights that are in the cluster"


def parse_source(source: ModelSource) -> ParsedSource:
    """Take a source apart; what cannot be served is refused here, before any pod exists."""
    scheme, separator, rest = source.uri.partition("://")
    if not separator:
        raise _invalid(source.uri, f"has no scheme: {_SCHEMES}")
    if scheme != "hf" and source.revision:
        raise _invalid(source.uri, "has no revisions, so source.revision cannot be used: remove it")
    if scheme in ("http", "https"):
        return _parse_url(source)
    if scheme == "hf":
        return _parse_repository(source, rest)
    if scheme not in ("file", "pvc", "ollama"):
        raise _invalid(source.uri, f"uses {scheme}://, which is not supported: {_SCHEMES}")
    if source.sha256 or source.secret_ref:
        raise _invalid(
            source.uri,
            "is not downloaded by Stoker, so source.sha256 and source.secretRef cannot be used: remove them",
        )
    if scheme == "ollama":
        return _parse_library(source.uri, rest)
    return _parse_file(source.uri, rest) if scheme == "file" else _parse_claim(source.uri, rest)


def parse_adapter(uri: str) -> ParsedSource:
    """The source of an adapter: a repository on Hugging Face, or a folder or GGUF file of a claim."""
    scheme, _, rest = uri.partition("://")
    if scheme == "hf" and _REPOSITORY.fullmatch(rest):
        return ParsedSource(scheme="hf", uri=uri, files=(), digest="", shape="Repository", reference=rest)
    if scheme == "pvc":
        return _parse_claim(uri, rest)
    raise Stalled("InvalidSource", f"the uri of an adapter, {uri}, must read hf://ORG/REPO or pvc://CLAIM/PATH")


def parse_draft(uri: str) -> ParsedSource:
    """The source of a draft model: a repository on Hugging Face, or a folder or GGUF file of a claim."""
    scheme, _, rest = uri.partition("://")
    if scheme == "hf" and _REPOSITORY.fullmatch(rest):
        return ParsedSource(scheme="hf", uri=uri, files=(), digest="", shape="Repository", reference=rest)
    if scheme == "pvc":
        return _parse_claim(uri, rest)
    raise Stalled("InvalidSource", f"the uri of a draft model, {uri}, must read hf://ORG/REPO or pvc://CLAIM/PATH")


def file_urls(source: ParsedSource) -> tuple[str, ...]:
    """One URL for each file of a downloaded source, in the order of ``files``; the query string is kept for all."""
    url = urlsplit(source.uri)
    folder, _, segment = url.path.rpartition("/")
    first = source.files[0]
    urls = [source.uri]
    for name in source.files[1:]:
        suffix = first[_common_prefix(first, name) :]
        # The part number is replaced in the segment as the user encoded it; re-encoding could name another object.
        renamed = segment[: -len(suffix)] + name[-len(suffix) :] if segment.endswith(suffix) else quote(name)
        urls.append(url._replace(path=f"{folder}/{renamed}").geturl())
    return tuple(urls)


def _parse_repository(source: ModelSource, rest: str) -> ParsedSource:
    """One GGUF file of a repository is fetched like any file; a whole repository is left to the engine."""
    parts = rest.rstrip("/").split("/")
    repository = "/".join(parts[:2])
    if not _REPOSITORY.fullmatch(repository) or any(part in ("", ".", "..") for part in parts):
        raise _invalid(source.uri, "must read hf://ORG/REPO or hf://ORG/REPO/FILE.gguf")
    if len(parts) > 2:
        address = f"https://huggingface.co/{repository}/resolve/{quote(source.revision or 'main', safe='')}"
        url = "/".join([address, *parts[2:]])
        try:
            return _parse_url(source.model_copy(update={"uri": url}))
        except Stalled as error:
            raise Stalled(error.reason, error.message.replace(url, source.uri)) from error
    if source.sha256:
        raise _invalid(
            source.uri,
            "is fetched by the engine, which checks no sums of yours: remove source.sha256, or name one file",
        )
    return ParsedSource(
        scheme="hf",
        uri=source.uri,
        files=(),
        digest="",
        shape="Repository",
        reference=repository,
        revision=source.revision or "",
    )


def _parse_library(uri: str, rest: str) -> ParsedSource:
    if not _LIBRARY_NAME.fullmatch(rest):
        raise _invalid(uri, "must read ollama://NAME or ollama://NAME:TAG")
    return ParsedSource(scheme="ollama", uri=uri, files=(), digest="", shape="Library", reference=rest)


def _parse_url(source: ModelSource) -> ParsedSource:
    uri = source.uri
    try:
        url = urlsplit(uri)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise _invalid(uri, f"is not a valid URL ({error})") from error
    if not host:
        raise _invalid(uri, "has no host name")
    if "@" in url.netloc:
        raise _invalid(
            _without_user(url),
            "carries a user or password: put the token into a Secret and name it in source.secretRef",
        )
    if url.fragment:
        raise _invalid(uri, "has a fragment (#…): remove it")
    name = unquote(url.path.rpartition("/")[2])
    if host in ("huggingface.co", "www.huggingface.co") and "/blob/" in url.path:
        raise _invalid(uri, f"is a web page: use {uri.replace('/blob/', '/resolve/', 1)}")
    files = _files(uri, name)
    checksums = source.sha256 or {}
    for unknown in sorted(set(checksums) - set(files)):
        raise _invalid(uri, f"has no file {unknown!r}, which source.sha256 names: its files are {_some(files)}")
    # The checksums are part of the identity: weights that were cached unchecked are not served as checked ones.
    identity = json.dumps([uri, dict(sorted(checksums.items()))])
    return ParsedSource(
        scheme="https" if url.scheme == "https" else "http", uri=uri, files=files, digest=short_digest(identity)
    )


def _parse_file(uri: str, rest: str) -> ParsedSource:
    if not rest.startswith("/"):
        raise _invalid(uri, "must read file:///PATH/ON/THE/NODE, with three slashes")
    folder, name = _split_path(uri, rest.rstrip("/"))
    if _is_folder(uri, name):
        path = f"{folder.rstrip('/')}/{name}"
        return ParsedSource(scheme="file", uri=uri, files=(), digest="", path=path, shape="Folder")
    if folder == "/":
        raise _invalid(
            uri, "lies in the node's root directory, which is never mounted: move the file into a directory of its own"
        )
    return ParsedSource(scheme="file", uri=uri, files=_files(uri, name), digest="", path=folder)


def _parse_claim(uri: str, rest: str) -> ParsedSource:
    claim, slash, path = rest.partition("/")
    if not slash or not path or len(claim) > 253 or not _CLAIM_NAME.fullmatch(claim):
        raise _invalid(uri, "must read pvc://CLAIM/PATH, with the name of a PersistentVolumeClaim in this namespace")
    folder, name = _split_path(uri, "/" + path.rstrip("/"))
    if _is_folder(uri, name):
        path = f"{folder}/{name}".strip("/")
        return ParsedSource(scheme="pvc", uri=uri, files=(), digest="", claim=claim, path=path, shape="Folder")
    return ParsedSource(scheme="pvc", uri=uri, files=_files(uri, name), digest="", claim=claim, path=folder.strip("/"))


def _split_path(uri: str, raw: str) -> tuple[str, str]:
    """Folder and file name, percent-encoding resolved."""
    if "?" in raw or "#" in raw:
        raise _invalid(uri, "has a query or fragment: write ? as %3F and # as %23 when they belong to the file's name")
    segments = [unquote(segment) for segment in raw.split("/")[1:]]
    for segment in segments:
        if segment in ("", ".", "..") or _FORBIDDEN_IN_NAMES.search(segment):
            raise _invalid(
                uri, "must be a plain path: no empty parts, no . or .., no control characters or backslashes"
            )
    return "/" + "/".join(segments[:-1]), segments[-1]


def _is_folder(uri: str, name: str) -> bool:
    """Weights in the cluster are one GGUF file or a folder; part of a folder by itself is a slip."""
    if name.lower().endswith(_SINGLE_WEIGHTS):
        folder = uri.rpartition("/")[0]
        raise _invalid(uri, f"names one file of a model that is a folder: name the folder, {folder}")
    return not name.lower().endswith(".gguf")


def _files(uri: str, name: str) -> tuple[str, ...]:
    """The names of all files: one, or the parts of a split GGUF."""
    if not name.lower().endswith(".gguf") or len(name) <= len(".gguf"):
        raise _invalid(uri, f"does not end in the name of a GGUF file: {_USE_HTTPS}")
    if len(name.encode()) > 255 or name.startswith(".") or _FORBIDDEN_IN_NAMES.search(name):
        raise _invalid(
            uri, "names a file that cannot be stored: at most 255 bytes, no leading dot, slash or control character"
        )
    split = _SPLIT_NAME.fullmatch(name)
    if not split:
        return (name,)
    part, parts = int(split["part"]), int(split["parts"])
    if not 1 <= parts <= MAX_PARTS:
        raise _invalid(uri, f"is split into {parts} parts: between 1 and {MAX_PARTS} are supported")
    if part != 1:
        first = f"{split['stem']}-00001-of-{split['parts']}.gguf"
        raise _invalid(
            uri, f"is part {part} of a split model: name the first part, {first}; the others are found by it"
        )
    return tuple(f"{split['stem']}-{number:05d}-of-{split['parts']}.gguf" for number in range(1, parts + 1))


def _common_prefix(one: str, other: str) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def _without_user(url: SplitResult) -> str:
    """The URL without its credentials: messages end up in a status that many may read."""
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def _some(files: tuple[str, ...]) -> str:
    return ", ".join(files[:3]) + (" …" if len(files) > 3 else "")


def _invalid(uri: str, problem: str) -> Stalled:
    return Stalled("InvalidSource", f"source.uri {uri} {problem}")
