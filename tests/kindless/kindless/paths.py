"""Where things are kept between runs."""

import os
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent
ENTRY = SOURCES / "kind"


def cache_dir() -> Path:
    configured = os.environ.get("STOKER_CACHE")
    return Path(configured).absolute() if configured else Path.home() / ".cache" / "stoker"
