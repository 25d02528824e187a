"""Brings one file of a model into the partial folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx

from stoker.errors import Stalled, Waiting
from stoker.fetch.config import SourceFile
from stoker.fetch.part import PartWriter, hash_file
from stoker.fetch.progress import ProgressReport
from stoker.fetch.source import explain_beginning, explain_error, explain_status, parse_content_range, shown
from stoker.fetch.state import CacheState, FileState

GGUF_MAGIC = b"GGUF"


class Download:
    """One file on its way; `run` is called again after each interruption and goes on where the last one ended."""

    def __init__(self, client: httpx.Client, file: SourceFile, folder: Path, state: CacheState, token: str) -> None:
        self._client = client
        self._file = file
        self._state = state
        self._known = state.file(file.name, file.url)
        self._token = token
        self._path = folder / file.name
        self._digest: hashlib._Hash | None = None
        self._digest_offset = -1
        self._resumed = False

    @property
    def length(self) -> int | None:
        """Size of the whole file, once the source has told."""
        return self._known.length

    @property
    def on_disk(self) -> int:
        """Bytes that need not be fetched again."""
        try:
            return min(self._known.synced, self._path.stat().st_size)
        except FileNotFoundError:
            return 0

    @property
    def unsynced(self) -> int:
        """Bytes on disk that were never synced; they are cut off when the download goes on."""
        try:
            return self._path.stat().st_size - self.on_disk
        except FileNotFoundError:
            return 0

    @property
    def complete(self) -> bool:
        """Whether the file lies there, whole, with the sum that is asked for now."""
        known = self._known
        return known.complete and self._path.exists() and known.sha256 == (self._file.sha256 or known.sha256)

    def run(
        self,
        report: ProgressReport,
        on_bytes: Callable[[int], None],
        may_start: Callable[[], None],
        may_go_on: Callable[[], None],
    ) -> None:
        """Fetch what is missing and verify the whole.

        `may_start` is asked once the size is known and before anything is written, `may_go_on` at every piece; both stop
        the download by raising.
        """
        if self.complete:
            return
        if not self._whole_on_disk():
            try:
                self._transfer(report, on_bytes, may_start, may_go_on)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise explain_error(error, self._file.url) from error
        self._verify(report, on_bytes)

    def learn_length(self) -> None:
        """Ask for the size alone; a source that does not answer HEAD tells it later."""
        if self._known.length is None:
            try:
                response = self._client.head(self._file.url, headers=self._headers())
            except (httpx.HTTPError, httpx.InvalidURL):
                return
            length = response.headers.get("Content-Length", "")
            if response.status_code == 200 and length.isascii() and length.isdigit():
                self._known.length = int(length)

    def _transfer(
        self,
        report: ProgressReport,
        on_bytes: Callable[[int], None],
        may_start: Callable[[], None],
        may_go_on: Callable[[], None],
    ) -> None:
        offset = self.on_disk if self._trusts_part() else 0
        headers = self._headers()
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._known.validator:
                headers["If-Range"] = self._known.validator
        with self._client.stream("GET", self._file.url, headers=headers) as response:
            offset = self._accept(response, offset)
            on_bytes(offset)
            may_start()
            digest = self._digest_at(offset, report, on_bytes)
            beginning = b"" if offset == 0 else None
            if offset:
                report.phase("Downloading", file=self._file.name)
            self._resumed = self._resumed or offset > 0
            try:
                with PartWriter(self._path, self._state, self._known, offset, digest) as part:
                    for piece in response.iter_raw():
                        may_go_on()
                        if beginning is not None:
                            beginning += piece
                            if len(beginning) < len(GGUF_MAGIC):
                                continue
                            self._require_gguf(beginning)
                            # Not before: a source that is asked again after a refusal would seem to make progress.
                            report.phase("Downloading", file=self._file.name)
                            piece, beginning = beginning, None
                        part.write(piece)
                        on_bytes(part.offset)
                    if beginning is not None:
                        self._require_gguf(beginning)
            except OSError:
                # Part of what was hashed may not have reached the disk.
                self._digest = None
                raise
            except BaseException:
                if beginning is None:
                    self._digest, self._digest_offset = digest, part.offset
                raise
            self._digest, self._digest_offset = digest, part.offset
        if self._known.length is None:
            self._known.length = part.offset
        elif part.offset != self._known.length:
            raise Waiting(
                "SourceInterrupted",
                f"{shown(self._file.url)} sent {part.offset} of {self._known.length} bytes: going on from here",
                retry_after=0,
            )

    def _accept(self, response: httpx.Response, offset: int) -> int:
        """Decide where the answer belongs in the file: behind what is there, or at the start because the source has changed."""
        if response.status_code == 416 and offset:
            # The file has become shorter than the part.
            raise self._start_again("has become shorter")
        if response.status_code not in (200, 206):
            raise explain_status(response, self._file.url, has_token=bool(self._token))
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise Waiting(
                "SourceRefused",
                f"{shown(self._file.url)} sends the file compressed, though that was not asked for: turn that off at the source",
                retry_after=0,
            )
        answer = _describe(response)
        if response.status_code == 206:
            span = parse_content_range(response.headers.get("Content-Range", ""))
            fits = span is not None and span[0] == offset > 0 and span[2] in (None, self._known.length)
            # Some servers do not know If-Range and send the rest of what is now another file.
            changed = answer.etag and self._known.etag and answer.etag != self._known.etag
            if not fits or changed:
                raise self._start_again("sent the rest of another file than the one that was begun")
            return offset
        self._refuse_known_bad(answer)
        self._forget()
        self._known.version = answer.version
        return 0

    def _start_again(self, what: str) -> Waiting:
        self._forget()
        # On disk, too: the next attempt reads the state afresh and would ask for the same rest again.
        self._state.save()
        return Waiting("SourceChanged", f"{shown(self._file.url)} {what}: starting again", retry_after=0)

    def _refuse_known_bad(self, answer: FileState) -> None:
        """A file that failed its sum is tens of gigabytes that would fail again: wait until the source offers another."""
        known = self._known
        same = answer.validator and answer.version == known.version
        if known.rejected_sha256 and known.rejected_sha256 != self._file.sha256 and self._file.sha256 and same:
            raise self._mismatch(known.rejected_sha256)

    def _digest_at(self, offset: int, report: ProgressReport, on_bytes: Callable[[int], None]) -> hashlib._Hash | None:
        if not self._file.sha256:
            return None
        if offset == 0:
            return hashlib.sha256()
        if self._digest is not None and self._digest_offset == offset:
            return self._digest
        report.phase("Verifying", file=self._file.name, message="reading the part that is already on disk")
        return hash_file(self._path, offset, on_bytes)

    def _verify(self, report: ProgressReport, on_bytes: Callable[[int], None]) -> None:
        known = self._known
        if self._file.sha256:
            size = self._path.stat().st_size
            report.phase("Verifying", file=self._file.name)
            if self._digest is None or self._digest_offset != size:
                self._digest, self._digest_offset = hash_file(self._path, size, on_bytes), size
            found = self._digest.hexdigest()
            if found != self._file.sha256:
                self._discard(found)
        known.sha256 = self._file.sha256
        known.complete = True
        known.rejected_sha256 = ""
        self._state.save()

    def _discard(self, found: str) -> None:
        """A part that was taken up again may have been spoiled by a crash, so only a file fetched in one go is refused for good."""
        resumed = self._resumed
        version = self._known.version
        self._forget()
        self._path.unlink(missing_ok=True)
        if not resumed:
            self._known.version = version
            self._known.rejected_sha256 = found
        self._state.save()
        if resumed:
            raise Waiting(
                "ChecksumMismatch",
                f"{self._file.name} has sha256 {found} after it was resumed, not {self._file.sha256}: fetching it anew",
                retry_after=0,
            )
        raise self._mismatch(found)

    def _mismatch(self, found: str) -> Stalled:
        return Stalled(
            "ChecksumMismatch",
            f"{self._file.name} has sha256 {found}, but source.sha256 says {self._file.sha256}: correct the sum, or the file at {shown(self._file.url)}",
        )

    def _require_gguf(self, beginning: bytes) -> None:
        if not beginning.startswith(GGUF_MAGIC):
            self._forget()
            raise Stalled(
                "NotGGUF",
                f"{shown(self._file.url)} is no GGUF file ({explain_beginning(beginning)}): check source.uri",
            )

    def _whole_on_disk(self) -> bool:
        """True after a stop between the last byte and the verification."""
        return self._trusts_part() and self._known.length is not None and self.on_disk == self._known.length > 0

    def _trusts_part(self) -> bool:
        """Whether a part may be gone on with: the source can tell if it has changed since, or else the sum can."""
        return bool(self._known.validator) or (bool(self._file.sha256) and self._known.length is not None)

    def _forget(self) -> None:
        known = self._known
        known.etag = known.last_modified = known.sha256 = known.rejected_sha256 = ""
        known.length, known.synced, known.complete = None, 0, False
        self._digest, self._digest_offset, self._resumed = None, -1, False

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _describe(response: httpx.Response) -> FileState:
    length = response.headers.get("Content-Length", "")
    return FileState(
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        length=int(length) if length.isascii() and length.isdigit() else None,
    )
