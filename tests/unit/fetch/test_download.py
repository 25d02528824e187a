"""How a download goes on against a fake source that cuts, changes, refuses and redirects."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from stoker.errors import Stalled, Waiting
from stoker.fetch import cache, part
from stoker.fetch.cache import fetch_model
from stoker.fetch.config import FetchConfig
from stoker.fetch.lock import CacheLock
from stoker.fetch.main import retry_until_fetched
from stoker.fetch.progress import ProgressReport
from stoker.fetch.source import explain_status
from stoker.fetch.state import STATE_FILE

MakeConfig = Callable[..., FetchConfig]


def attempt(config: FetchConfig) -> ProgressReport:
    """One attempt, no retry after it."""
    report = ProgressReport(config.progress_file)
    fetch_model(config, report, CacheLock(config.lock_file, settle=0))
    return report


def fetch(config: FetchConfig) -> ProgressReport:
    report = ProgressReport(config.progress_file)
    retry_until_fetched(config, report, first_delay=0.01, settle=0)
    return report


def obstacle(config: FetchConfig) -> Waiting:
    with pytest.raises(Waiting) as caught:
        attempt(config)
    return caught.value


def content(config: FetchConfig, name: str = "model.gguf") -> bytes:
    return (config.folder / name).read_bytes()


def test_weights_arrive_whole_and_the_partial_folder_is_gone(fake_source: Any, make_config: MakeConfig) -> None:
    config = make_config(sha256=None)
    report = attempt(config)
    assert content(config) == fake_source.files["model.gguf"]
    assert not config.partial.exists()
    assert report.current.completed_bytes == report.current.total_bytes == len(content(config))


def test_weights_that_are_there_are_not_asked_for_again(fake_source: Any, make_config: MakeConfig) -> None:
    config = make_config(sha256=None)
    attempt(config)
    fake_source.seen.clear()
    attempt(config)
    assert fake_source.seen == []


@pytest.mark.parametrize("sha256", ["", None], ids=["without a sum", "with a sum"])
def test_a_source_that_cuts_is_resumed_and_no_byte_is_fetched_twice(
    fake_source: Any, make_config: MakeConfig, sha256: str | None
) -> None:
    for _ in range(3):
        fake_source.answer(cut_after=700_000)
    config = make_config(sha256=sha256)
    fetch(config)
    whole = fake_source.files["model.gguf"]
    assert content(config) == whole
    assert fake_source.body_bytes <= len(whole) * 1.01
    assert all(request.headers["if-range"] == '"one"' for request in fake_source.gets[1:])


def test_a_new_process_goes_on_where_a_killed_one_stopped(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=500)
    config = make_config(sha256=None)
    assert obstacle(config).reason == "SourceUnavailable"
    fake_source.seen.clear()
    attempt(config)
    assert fake_source.gets[0].headers["range"] == "bytes=1000000-"
    assert content(config) == fake_source.files["model.gguf"]


def test_bytes_that_were_never_synced_are_fetched_again(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=500)
    config = make_config()
    obstacle(config)
    with (config.partial / "model.gguf").open("ab") as stream:
        stream.write(bytes(5000))  # what a crashed node may leave behind
    fetch(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_a_source_that_ignores_ranges_starts_again(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(ignore_range=True)
    config = make_config(sha256=None)
    fetch(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_a_source_that_sends_less_than_the_rest_is_asked_for_more(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(range_cap=500_000)
    fake_source.answer(range_cap=500_000)
    config = make_config()
    fetch(config)
    assert content(config) == fake_source.files["model.gguf"]
    assert [request.headers["range"] for request in fake_source.gets[1:]] == [
        "bytes=1000000-",
        "bytes=1500000-",
        "bytes=2000000-",
    ]


@pytest.mark.parametrize("ignores_if_range", [False, True], ids=["knows If-Range", "does not know If-Range"])
def test_a_source_that_changed_in_between_starts_again(
    fake_source: Any, make_config: MakeConfig, ignores_if_range: bool
) -> None:
    other = b"GGUF" + b"another" * 400_000

    def change() -> None:
        fake_source.files["model.gguf"], fake_source.etag = other, '"two"'

    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=503)
    config = make_config()
    obstacle(config)
    change()
    fake_source.answer(ignore_if_range=ignores_if_range)
    fetch(config)
    assert content(config) == other


def test_a_source_that_became_shorter_starts_again(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=503)
    config = make_config()
    obstacle(config)
    fake_source.files["model.gguf"] = b"GGUF short"
    fetch(config)
    assert content(config) == b"GGUF short"


def test_without_etag_and_date_only_a_sum_makes_a_part_trustworthy(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.etag = ""
    fake_source.answer(cut_after=1_000_000)
    with_sum = make_config(sha256=None)
    fetch(with_sum)
    assert fake_source.gets[1].headers["range"] == "bytes=1000000-"
    fake_source.seen.clear()
    fake_source.answer(cut_after=1_000_000)
    fetch(make_config(digest="fedcba9876543210"))
    assert "range" not in fake_source.gets[1].headers


def test_a_date_stands_in_for_a_weak_etag(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.etag = 'W/"weak"'
    date = "Mon, 02 Nov 2026 10:00:00 GMT"
    fake_source.answer(cut_after=1_000_000, headers={"Last-Modified": date})
    fake_source.answer(ignore_if_range=True)
    fetch(make_config())
    assert fake_source.gets[1].headers["if-range"] == date


def test_a_wrong_sum_is_refused_and_the_same_file_is_not_fetched_again(
    fake_source: Any, make_config: MakeConfig
) -> None:
    config = make_config(sha256="0" * 64)
    with pytest.raises(Stalled) as caught:
        attempt(config)
    assert caught.value.reason == "ChecksumMismatch"
    assert hashlib.sha256(fake_source.files["model.gguf"]).hexdigest() in caught.value.message
    assert not config.folder.exists()
    with pytest.raises(Stalled) as again:
        attempt(config)
    assert again.value.reason == "ChecksumMismatch"
    # Headers were asked for again; what of the body had been sent until the connection closed is not read.
    assert not (config.partial / "model.gguf").exists()


def test_a_mended_source_is_taken_after_a_wrong_sum(fake_source: Any, make_config: MakeConfig) -> None:
    right = b"GGUF" + b"right" * 100
    config = make_config(sha256=hashlib.sha256(right).hexdigest())
    with pytest.raises(Stalled):
        attempt(config)
    fake_source.files["model.gguf"], fake_source.etag = right, '"two"'
    attempt(config)
    assert content(config) == right


def test_a_part_that_was_spoiled_on_disk_is_fetched_anew_before_it_is_refused(
    fake_source: Any, make_config: MakeConfig
) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=503)
    config = make_config(sha256=None)
    obstacle(config)
    with (config.partial / "model.gguf").open("r+b") as stream:
        stream.seek(500_000)
        stream.write(b"spoiled")
    assert obstacle(config).reason == "ChecksumMismatch"
    attempt(config)
    assert content(config) == fake_source.files["model.gguf"]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"", "empty"),
        (b"GG", "b'GG'"),
    ],
)
def test_what_is_no_gguf_is_refused_at_its_first_bytes(
    fake_source: Any, make_config: MakeConfig, body: bytes, hint: str
) -> None:
    fake_source.files["model.gguf"] = body
    config = make_config()
    with pytest.raises(Stalled) as caught:
        attempt(config)
    assert caught.value.reason == "NotGGUF"
    assert hint in caught.value.message
    assert (config.partial / "model.gguf").stat().st_size == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "SourceUnauthorized"),
        (403, "SourceUnauthorized"),
        (404, "SourceNotFound"),
        (418, "SourceRefused"),
        (500, "SourceUnavailable"),
    ],
)
def test_each_refusal_has_its_reason_and_can_end(
    fake_source: Any, make_config: MakeConfig, status: int, reason: str
) -> None:
    fake_source.answer(status=status)
    config = make_config()
    assert obstacle(config).reason == reason
    fetch(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_a_gated_repository_is_told_from_a_wrong_token(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(status=403, headers={"X-Error-Code": "GatedRepo"})
    found = obstacle(make_config())
    assert found.reason == "SourceGated"
    assert "accept the model's terms" in found.message
    assert "source.secretRef" in found.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("m-00001-of-00003.gguf", "SourceNotFound"),
        ("m-00002-of-00003.gguf", "ShardNotFound"),
        ("m.gguf", "SourceNotFound"),
    ],
)
def test_a_later_part_that_is_missing_has_its_own_reason(name: str, reason: str) -> None:
    url = f"https://host/{name}?download=true"
    assert explain_status(httpx.Response(404), url, has_token=False).reason == reason


def test_retry_after_is_respected_within_bounds(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(status=429, headers={"Retry-After": "7"})
    fake_source.answer(status=503, headers={"Retry-After": "99999"})
    assert obstacle(make_config()).retry_after == 7
    assert obstacle(make_config()).retry_after == 300


def test_a_source_that_cannot_be_reached_says_so(make_config: MakeConfig) -> None:
    found = obstacle(make_config(url="http://127.0.0.1:1/model.gguf"))
    assert found.reason == "SourceUnreachable"


def test_a_source_that_falls_silent_is_asked_again(
    fake_source: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.fetch.source.READ_TIMEOUT", 0.2)
    finished = threading.Event()
    fake_source.answer(before_body=lambda: finished.wait(10))
    config = make_config()
    fetch(config)
    finished.set()
    assert content(config) == fake_source.files["model.gguf"]
    assert len(fake_source.gets) == 2


def test_secrets_in_the_url_reach_neither_messages_nor_the_cache(fake_source: Any, make_config: MakeConfig) -> None:
    url = f"http://alice:hunter2@127.0.0.1:{fake_source.port}/model.gguf?signature=geheim"
    fake_source.answer(status=404)
    config = make_config(url=url)
    text = obstacle(config).message
    attempt(config)
    text += (config.folder / STATE_FILE).read_text()
    assert "hunter2" not in text
    assert "geheim" not in text


def test_the_token_goes_to_the_source_but_not_to_the_host_it_redirects_to(
    fake_source: Any, make_config: MakeConfig
) -> None:
    elsewhere = fake_source.url("model.gguf", host="localhost")
    fake_source.answer(status=302, headers={"Location": elsewhere})
    config = make_config(token="hf_secret")
    attempt(config)
    first, second = fake_source.gets
    assert first.headers["authorization"] == "Bearer hf_secret"
    assert second.headers["host"].startswith("localhost")
    assert "authorization" not in second.headers


def test_the_token_stays_on_a_redirect_within_the_host(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(status=302, headers={"Location": "/elsewhere/model.gguf"})
    attempt(make_config(token="hf_secret"))
    assert fake_source.gets[1].headers["authorization"] == "Bearer hf_secret"


def test_a_proxy_from_the_environment_is_used(
    fake_source: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{fake_source.port}")
    attempt(make_config(url="http://weights.example/model.gguf"))
    assert fake_source.gets[0].path == "http://weights.example/model.gguf"


def test_a_split_model_is_fetched_in_order_and_counted_as_one(fake_source: Any, make_config: MakeConfig) -> None:
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        fake_source.files[name] = b"GGUF" + bytes([i]) * 100_000
    config = make_config(*names, sha256=None)
    report = attempt(config)
    assert [request.path.strip("/") for request in fake_source.gets] == names
    assert report.current.total_bytes == report.current.completed_bytes == 300_012
    assert all(content(config, name) == fake_source.files[name] for name in names)


def test_finished_files_of_a_split_model_are_not_fetched_again(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.files["a.gguf"] = fake_source.files["b.gguf"] = b"GGUF" + bytes(1000)
    config = make_config("a.gguf", "b.gguf")
    fake_source.answer()
    fake_source.answer(status=404)
    assert obstacle(config).reason == "SourceNotFound"
    assert not config.folder.exists()
    fake_source.seen.clear()
    attempt(config)
    assert [request.path for request in fake_source.gets] == ["/b.gguf"]


def test_a_cache_without_room_says_so_before_anything_is_written(
    fake_source: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Usage)
    config = make_config()
    found = obstacle(config)
    assert found.reason == "DiskFull"
    assert "cache.size" in found.message
    assert not (config.partial / "model.gguf").exists()
    Usage.free = 10_000_000
    attempt(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_a_disk_that_fills_up_while_writing_is_reported_and_the_download_goes_on_later(
    fake_source: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = part.PartWriter.write

    def full(self: part.PartWriter, piece: bytes) -> None:
        if self.offset > 1_000_000:
            raise OSError(28, "No space left on device")
        real(self, piece)

    config = make_config(sha256=None)
    with monkeypatch.context() as patch:
        patch.setattr(part.PartWriter, "write", full)
        assert obstacle(config).reason == "DiskFull"
    attempt(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_the_synced_offset_follows_the_download(
    fake_source: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state file never claims more than was written, also while the sync thread works beside the download."""
    monkeypatch.setattr(part, "SYNC_EVERY", 64 * 1024)
    claims: list[tuple[int, int]] = []
    real = part.PartWriter._note

    def note(self: part.PartWriter, offset: int) -> None:
        claims.append((offset, self.offset))
        real(self, offset)
        noted.set()

    noted = threading.Event()
    write = part.PartWriter.write

    def write_and_wait(self: part.PartWriter, piece: bytes) -> None:
        before = self._next_sync
        noted.clear()
        write(self, piece)
        # On a busy disk one sync would otherwise stand for many writes.
        if self._next_sync != before:
            noted.wait(10)

    monkeypatch.setattr(part.PartWriter, "_note", note)
    monkeypatch.setattr(part.PartWriter, "write", write_and_wait)
    attempt(make_config())
    # On a slow disk one sync may be all that fits beside the download; the other is the last.
    assert len(claims) >= 2
    assert all(claimed <= written for claimed, written in claims)
    assert [claimed for claimed, _ in claims] == sorted(claimed for claimed, _ in claims)


def test_a_sum_that_is_asked_for_later_is_checked_on_what_is_cached(fake_source: Any, make_config: MakeConfig) -> None:
    attempt(make_config())
    fake_source.seen.clear()
    attempt(make_config(sha256=None))
    with pytest.raises(Stalled) as caught:
        attempt(make_config(sha256="1" * 64))
    assert caught.value.reason == "ChecksumMismatch"
    assert fake_source.seen == []


def test_a_finished_folder_that_lost_a_file_is_mended(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.files["a.gguf"] = fake_source.files["b.gguf"] = b"GGUF" + bytes(1000)
    config = make_config("a.gguf", "b.gguf")
    attempt(config)
    (config.folder / "b.gguf").unlink()
    fake_source.seen.clear()
    attempt(config)
    assert [request.path for request in fake_source.gets] == ["/b.gguf"]


def test_a_spoiled_state_file_only_costs_the_part(fake_source: Any, make_config: MakeConfig) -> None:
    fake_source.answer(cut_after=1_000_000)
    fake_source.answer(status=503)
    config = make_config()
    obstacle(config)
    (config.partial / STATE_FILE).write_text('{"files": {"model.gguf": {"synced": ')
    attempt(config)
    assert content(config) == fake_source.files["model.gguf"]


def test_progress_tells_the_reason_while_it_retries(fake_source: Any, make_config: MakeConfig) -> None:
    config = make_config()
    seen: list[dict[str, Any]] = []

    def remember() -> None:
        seen.append(json.loads(config.progress_file.read_text()))

    fake_source.answer(status=404)
    fake_source.answer(before_body=remember)
    fetch(config)
    assert seen[0]["phase"] == "Retrying"
    assert seen[0]["reason"] == "SourceNotFound"
    assert "source.uri" in seen[0]["message"]
