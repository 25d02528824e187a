"""A person at the web chat, in Chromium: signs in, asks, reads the answer while it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gateway.conftest import World
from gateway.pod import until
from webui.open_webui import EMAIL, PASSWORD, OpenWebUI

BROWSER = Path(__file__).with_name("browser.py")


def test_a_person_signs_in_chats_and_is_known_by_name_at_the_gateway(
    ui: OpenWebUI, world: World, chromium: Path, playwright_installed: None, tmp_path: Path
) -> None:
    world.engines[0].seen.clear()
    # In a process of its own: Playwright's loop and pytest's do not like each other.
    command = [sys.executable, BROWSER, chromium, ui.url, EMAIL, PASSWORD, "Count for me", "0 1 2 3 4", tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"seen while it was written: \d+ states", done.stdout)
    (seen,) = world.engines[0].seen
    assert b'"stream":true' in seen.body.replace(b" ", b"")
    assert len(seen.body) < 2000, "no tool descriptions for a short question"
    lines = until(lambda: [line for line in world.pod.access_log() if line.get("user") == EMAIL], "the log line")
    assert {line["key"] for line in lines} == {"gateway-webui"}
