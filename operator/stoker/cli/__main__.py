"""Entry of the program ``kubectl-stoker``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; where what it needs was not installed, say how."""
    try:
        from stoker.cli.main import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit("error: the command line needs more than the image has: install stoker[cli]")
    app(prog_name="kubectl stoker")


if __name__ == "__main__":
    main()
