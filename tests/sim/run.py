"""`make sim`: every policy on every trace; writes docs/benchmarks/autoscaling.md and fails when a promise is broken."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

from sim.plot import draw  # noqa: E402
from sim.promises import all_promises  # noqa: E402
from sim.report import write_report  # noqa: E402
from sim.suite import frontier_jobs, other_jobs, run_all, trial_jobs  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, help="default: one for each core")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs/benchmarks", help="where to write")
    options = parser.parse_args()
    jobs = [*frontier_jobs(), *trial_jobs(), *other_jobs()]
    print(f"==> {len(jobs)} runs")
    began = time.monotonic()
    results = run_all(jobs, options.processes)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    promises = all_promises(results)
    options.docs.mkdir(parents=True, exist_ok=True)
    page = options.docs / "autoscaling.md"
    page.write_text(write_report(results, promises, children.ru_utime + children.ru_stime), encoding="utf-8")
    draw(results, page.with_suffix(".png"))
    for promise in promises:
        print(f"{'kept  ' if promise.kept else 'BROKEN'}  {promise.name}: {promise.seen} ({promise.limit})")
    print(f"==> {page}, in {time.monotonic() - began:.0f} s")
    return 0 if all(promise.kept for promise in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
