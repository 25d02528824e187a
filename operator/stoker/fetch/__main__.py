"""Lets `python -m stoker.fetch` run the downloader."""

from __future__ import annotations

import sys

from stoker.fetch.main import main

sys.exit(main(sys.argv[1:]))
