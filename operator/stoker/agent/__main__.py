"""Lets `python -m stoker.agent` run the sidecar."""

from __future__ import annotations

import sys

from stoker.agent.main import main

sys.exit(main(sys.argv[1:]))
