"""``python -m stoker.codegen [--check]``: write the generated files, or fail where they differ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stoker.codegen import files
from stoker.codegen.chart import HelmError
from stoker.codegen.schema import SchemaError


def main(arguments: list[str] | None = None) -> int:
    """0 when the files are as they should be (or were made so), 1 when they differ, 2 when they cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m stoker.codegen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[3], help="the checkout (default: this one)")
    options = parser.parse_args(arguments)
    try:
        wanted = files.generate(options.root)
    except (SchemaError, HelmError) as error:
        print(error, file=sys.stderr)
        return 2
    if not options.check:
        for path in files.write(options.root, wanted):
            print(path)
        return 0
    stale = files.stale_files(options.root, wanted)
    if stale:
        print("differ from what the code says:", *stale, "run: make generate", sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
