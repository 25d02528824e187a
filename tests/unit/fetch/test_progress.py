from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from stoker.api.observed import FetchPhase, FetchProgress
from stoker.fetch.progress import Phase, Progress, ProgressReport


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_operator_reads_the_very_fields_that_are_written() -> None:
    assert Phase == FetchPhase
    # The model's description is checked by tests/unit/models/test_inspected.py.
    assert [(f.name, f.type, f.default) for f in dataclasses.fields(Progress) if f.name != "model"] == [
        (f.name, f.type if f.name != "phase" else "Phase", f.default)
        for f in dataclasses.fields(FetchProgress)
        if f.name != "model"
    ]


def test_bytes_touch_the_disk_once_a_second_and_phases_at_once(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "progress.json"
    report = ProgressReport(path, clock)
    report.phase("Downloading", file="m.gguf")
    report.bytes(10, 100)
    assert json.loads(path.read_text())["completedBytes"] == 0
    clock.now += 1.0
    report.bytes(20, 100)
    assert json.loads(path.read_text()) == {
        "phase": "Downloading",
        "file": "m.gguf",
        "completedBytes": 20,
        "totalBytes": 100,
        "bytesPerSecond": 20,
        "reason": "",
        "message": "",
    }
    report.phase("Retrying", reason="SourceNotFound", message="check it")
    assert json.loads(path.read_text())["reason"] == "SourceNotFound"


def test_speed_is_that_of_the_last_seconds_not_of_the_resumed_part(tmp_path: Path) -> None:
    clock = Clock()
    report = ProgressReport(tmp_path / "progress.json", clock)
    report.bytes(1_000_000, 2_000_000)
    report.phase("Downloading")
    clock.now += 1.0
    report.bytes(1_000_500, 2_000_000)
    assert report.current.bytes_per_second == 500
    for _ in range(6):
        clock.now += 1.0
        report.bytes(1_000_500, 2_000_000)
    assert report.current.bytes_per_second == 0


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    report = ProgressReport(tmp_path / "missing" / "progress.json")
    report.phase("Downloading")
    report.bytes(1, 2)
    assert report.current.phase == "Downloading"
