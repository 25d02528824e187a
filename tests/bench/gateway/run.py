"""`make bench`: Stoker's gateway, bare Envoy and the peers that can be installed; writes docs/benchmarks/gateway.{md,png}."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

from bench.gateway import report  # noqa: E402
from bench.gateway.gateways import OTHER_KEYS, Direct, Gateway, Stoker, bare_envoy, peer  # noqa: E402
from bench.gateway.peers import PEERS, NotInstallable  # noqa: E402
from bench.gateway.processes import choose_cores, on_cores  # noqa: E402
from bench.gateway.runs import (  # noqa: E402
    REPEATS,
    Numbers,
    run_chunks,
    run_light,
    run_memory,
    run_ready,
    run_requests,
    run_revoked,
)
from bench.gateway.tools import MockEngine  # noqa: E402

PAGE = ROOT / "docs/benchmarks/gateway.md"
PICTURE = PAGE.with_suffix(".png")


def main() -> int:
    """The whole run; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each run under load")
    parser.add_argument("--only", default="", help="names of peers, by comma; - for none")
    parser.add_argument("--no-page", action="store_true", help="print, and write nothing")
    chosen = parser.parse_args()
    gateway_core, other_cores = choose_cores()
    os.sched_setaffinity(0, other_cores)
    measured = report.Measured(chosen.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-bench-")))
        engine = MockEngine()
        stack.callback(engine.stop)
        load_before = os.getloadavg()[0]
        stoker = Stoker(folder, engine.ports)
        gateways: list[Gateway] = [stoker, bare_envoy(folder, engine.ports)]
        wanted = [which for which in PEERS if not chosen.only or which.name in chosen.only.split(",")]
        for which in wanted:
            try:
                which.install()
                gateways.append(peer(which, folder, engine.ports))
            except NotInstallable as error:
                measured.skipped.append(f"{which.name} {which.version} cannot be installed here ({error})")
        for gateway in list(gateways):
            with on_cores(gateway_core):
                say(f"starting {gateway.name}")
                try:
                    gateway.start()
                    stack.callback(gateway.stop)
                except RuntimeError as error:
                    gateways.remove(gateway)
                    measured.skipped.append(str(error))
        gateways.append(Direct(engine.ports))
        measured.gateways = {gateway.name: Numbers() for gateway in gateways}
        measure(measured, gateways, stoker, engine, chosen.seconds)
        measured.machine = (
            f"Run on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, the machine's load"
            f" average before it {load_before:.1f}."
        )
    for what in measured.skipped:
        say(f"not measured: {what}")
    lines = report.build_lines(measured)
    for line in lines:
        print(f"  {line.verdict.strip('*'):12} {line.what}: {line.measured} (target {line.target})")
    if not chosen.no_page:
        from bench.gateway.plot import draw  # a picture only needs its library

        PAGE.write_text(report.build_page(measured, OTHER_KEYS + 1, REPEATS))
        draw(measured, PICTURE)
        print(f"written: {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")
    return 0 if all(line.met is not False for line in lines) else 1


def measure(
    measured: report.Measured, gateways: list[Gateway], stoker: Stoker, engine: MockEngine, seconds: float
) -> None:
    """Memory first, then the rounds; in every second one the gateways take turns the other way round."""
    for gateway in gateways:
        if gateway.name not in (report.LITELLM, report.DIRECT):
            say(f"memory: {gateway.name}")
            run_memory(gateway, engine, measured.gateways[gateway.name])
    kinds: list[tuple[str, Callable[[Gateway, MockEngine, Numbers, float], None]]]
    kinds = [("requests", run_requests), ("chunks", run_chunks), ("first byte", run_light)]
    for number in range(measured.rounds):
        for title, run in kinds:
            for gateway in gateways if number % 2 == 0 else gateways[::-1]:
                say(f"round {number + 1}, {title}: {gateway.name}")
                run(gateway, engine, measured.gateways[gateway.name], seconds)
    say("keys and endpoints")
    measured.revoked = run_revoked(stoker)
    measured.ready = run_ready(stoker, engine)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
