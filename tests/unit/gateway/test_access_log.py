from __future__ import annotations

from pathlib import Path

import pytest

from stoker.gateway import access_log
from stoker.gateway.access_log import CURRENT, KEEP, LogReader, Rotation, rotated_numbers, rotated_path


def append(folder: Path, text: str) -> None:
    with (folder / CURRENT).open("a") as file:
        file.write(text)


def rotate(folder: Path) -> None:
    (folder / CURRENT).rename(rotated_path(folder, access_log.current_number(folder)))


def test_whole_lines_are_read_and_a_half_one_waits_for_its_end(tmp_path: Path) -> None:
    reader = LogReader(tmp_path, 1)
    assert reader.read() == b""
    append(tmp_path, "one\ntwo\nthr")
    assert reader.read() == b"one\ntwo\n"
    assert reader.read() == b""
    append(tmp_path, "ee\n")
    assert reader.read() == b"three\n"


def test_a_reader_at_the_end_sees_only_what_is_new(tmp_path: Path) -> None:
    assert LogReader.at_end(tmp_path).read() == b""
    append(tmp_path, "old\n")
    reader = LogReader.at_end(tmp_path)
    append(tmp_path, "new\n")
    assert reader.read() == b"new\n"


def test_nothing_is_lost_or_read_twice_when_files_are_rotated_meanwhile(tmp_path: Path) -> None:
    reader = LogReader(tmp_path, 1)
    read = b""
    for number in range(20):
        append(tmp_path, f"a{number}\n")
        if number % 3 == 0:
            read += reader.read()
        rotate(tmp_path)
        if number % 4 == 0:
            read += reader.read()
        # Envoy writes on to the renamed file until it is told.
        with rotated_path(tmp_path, number + 1).open("a") as file:
            file.write(f"b{number}\n")
        if number % 5 == 0:
            read += reader.read()
        append(tmp_path, "")
    while data := reader.read():
        read += data
    assert read.decode().split() == [f"{kind}{number}" for number in range(20) for kind in "ab"]


def test_a_place_that_was_kept_is_found_again_by_another_reader(tmp_path: Path) -> None:
    append(tmp_path, "one\ntwo\n")
    first = LogReader(tmp_path, 1)
    assert first.read(most=5) == b"one\n"
    first.close()
    rotate(tmp_path)
    append(tmp_path, "three\n")
    second = LogReader(tmp_path, first.number, first.offset)
    assert second.read() == b"two\n"
    assert second.read() == b"three\n"
    assert (second.number, second.offset) == (2, 6)


def test_a_reader_that_came_too_late_goes_on_with_what_is_left(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, f"{number}\n")
        rotate(tmp_path)
    rotated_path(tmp_path, 1).unlink()
    append(tmp_path, "3\n")
    reader = LogReader(tmp_path, 1, 0)
    assert [reader.read() for _ in range(4)] == [b"1\n", b"2\n", b"3\n", b""]


def test_a_line_without_end_does_not_stop_the_reader(tmp_path: Path) -> None:
    append(tmp_path, "x" * 100 + "\nnext\n")
    reader = LogReader(tmp_path, 1)
    assert reader.read(most=20) == b"\nnext\n"


async def test_large_files_are_rotated_and_only_the_latest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def call(socket: Path, method: str, target: str) -> tuple[int, bytes]:
        told.append(f"{method} {target}")
        return 200, b""

    monkeypatch.setattr(access_log.admin, "call", call)
    rotation = Rotation(tmp_path, tmp_path / "admin.sock", rotate_from=10)
    await rotation.look()
    assert told == []
    for _ in range(KEEP + 3):
        append(tmp_path, "0123\n")
        await rotation.look()
        append(tmp_path, "56789\n")
        await rotation.look()
        append(tmp_path, "")
    assert rotated_numbers(tmp_path) == list(range(4, KEEP + 4))
    assert told == ["POST /reopen_logs"] * (KEEP + 3)


async def test_an_envoy_that_was_not_reached_is_told_again(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path, tmp_path / "no.sock", rotate_from=1)
    append(tmp_path, "x\n")
    await rotation.look()
    assert rotated_numbers(tmp_path) == [1]
    await rotation.look()
    assert rotated_numbers(tmp_path) == [1]
