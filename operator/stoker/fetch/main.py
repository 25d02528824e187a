"""Process of the init container: tries until the weights are there, and says all the while how it goes."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import structlog

from stoker.errors import Stalled, StokerError, Waiting
from stoker.fetch.cache import fetch_model
from stoker.fetch.config import DEFAULT_PROGRESS_FILE, FetchConfig, parse_config
from stoker.fetch.lock import SETTLE, CacheLock
from stoker.fetch.progress import ProgressReport

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
FAILED_DELAY = 30.0
SELDOM = 10.0
"""Looks that fetch the whole file take at most about a tenth of the time."""
TERMINATION_LOG = Path("/dev/termination-log")

log = structlog.get_logger("fetch")


def main() -> int:
    """0: the weights are there; 1: the pod was given a configuration that cannot be used; 143: told to stop."""
    _configure_logs()
    for number in (signal.SIGTERM, signal.SIGINT):
        # As PID 1 a process gets no default action: without a handler the pod would hang until its grace period ends.
        signal.signal(number, _stop)
    try:
        config = parse_config(os.environ)
    except Stalled as failure:
        # A container that starts again gets the same environment, so only a new pod helps.
        _tell_failure(ProgressReport(Path(DEFAULT_PROGRESS_FILE)), failure)
        return 1
    report = ProgressReport(config.progress_file)
    try:
        retry_until_fetched(config, report)
    except SystemExit as stop:
        log.info("stopping; the next start goes on from here", status=stop.code)
        raise
    report.phase("Done")
    return 0


def retry_until_fetched(
    config: FetchConfig,
    report: ProgressReport,
    *,
    first_delay: float = FIRST_DELAY,
    failed_delay: float = FAILED_DELAY,
    settle: float = SETTLE,
) -> None:
    """Try for as long as the pod lives: whatever is wrong can be mended outside, and then nobody should have to restart anything.

    Waits grow while nothing arrives and start small again after every byte that did: a source that cuts often is still a
    source. A file that was refused is looked at again, too, which takes its headers or its first bytes; where it takes the
    whole file (a wrong sum, and a source that does not tell versions apart) it is done seldom.
    """
    delay = first_delay
    failed_before = False
    while True:
        before, started = report.current.completed_bytes, time.monotonic()
        try:
            fetch_model(config, report, CacheLock(config.lock_file, settle=settle))
        except Waiting as obstacle:
            failed_before = False
            if report.current.completed_bytes > before:
                delay = first_delay
            pause = max(delay, obstacle.retry_after) * random.uniform(0.8, 1.2)  # noqa: S311
            report.phase("Retrying", file=report.current.file, reason=obstacle.reason, message=obstacle.message)
            delay = min(delay * 2, LONGEST_DELAY)
        except Stalled as refusal:
            _tell_failure(report, refusal)
            pause = max(failed_delay, (time.monotonic() - started) * SELDOM if failed_before else 0.0)
            failed_before = True
            delay = first_delay
        else:
            return
        time.sleep(pause)


def _tell_failure(report: ProgressReport, failure: StokerError) -> None:
    report.phase("Failed", file=report.current.file, reason=failure.reason, message=failure.message)
    try:
        TERMINATION_LOG.write_text(f"{failure.reason}: {failure.message}")
    except OSError:
        log.debug("no termination log here")


def _stop(number: int, _frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    # No log line here: the signal may have come in the middle of one.
    raise SystemExit(128 + number)


def _configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
