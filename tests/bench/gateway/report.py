"""docs/benchmarks/gateway.md: the targets and whether they are met, then every gateway beside bare Envoy."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from bench.gateway.peers import PEERS
from bench.gateway.runs import CHUNKS, LIGHT_RATE, OPEN_STREAMS, SLOW_STREAMS, STREAMS, Numbers, median_ratio

OURS, BARE, ROUTER, LITELLM, DIRECT = "Stoker", "bare Envoy", "sglang-router", "LiteLLM", "direct"
INTRODUCTION = """\
# The gateway beside Envoy and other gateways

    make bench

Everything runs on one machine and talks over loopback: a mock engine and a load generator, both in C (`tests/bench/gateway/`), and one gateway under
load at a time, on a core of its own. Stoker's is the whole of a gateway's pod, Envoy, policy and relay, as in production but with one Envoy worker; only
the API server that it watches is a fake. Each knows {keys} keys where it knows keys at all. Gateways take turns within each round, and a ratio is the
median over {rounds} rounds of the ratios within a round (in brackets: smallest and largest). CPU is user and system time of all processes of a gateway, divided by what
the engine has counted. Absolute times differ between machines and are left out, except where the target is one.
"""
NOTES = """\
* Request: about 700 bytes, a plain answer of 400, 64 connections that ask again at once. Chunk: {streams} streams ({slow} for LiteLLM) of {chunks} chunks, one each 20 ms; the requests' own cost is in it.
* Bare Envoy is the same executable with one route and one cluster: no key, no log, no limits. sglang-router checks one key and knows one pool of
  engines; LiteLLM runs with a master key and no database. Stoker finds the model, its endpoints, the caller's key, role and limits, and writes a line of log.
* First byte: {rate} requests a second; added to what the engine takes when asked directly. Memory: proportional set size of all processes, {open} streams with a chunk each 2 s.
* Key and endpoint: from the change in the API server (what the operator takes before that is not in it) until the gateway answers accordingly, the largest of {repeats}.
"""


@dataclass
class Measured:
    """All of one run."""

    rounds: int
    gateways: dict[str, Numbers] = field(default_factory=dict)
    revoked: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    machine: str = ""


@dataclass(frozen=True)
class Line:
    """One target."""

    what: str
    measured: str
    target: str
    met: bool | None
    """None where it could not be measured."""
    stretch: str = ""

    @property
    def verdict(self) -> str:
        return "not measured" if self.met is None else "yes" if self.met else "**no**"


def build_lines(measured: Measured) -> list[Line]:
    """Every line of the targets, met or not."""
    ours, bare = measured.gateways[OURS], measured.gateways[BARE]
    lines = [
        _at_most("CPU of a request : bare Envoy", ours.request_us, bare.request_us, 2.8, 2.0),
        _at_most("CPU of a chunk : bare Envoy", ours.chunk_us, bare.chunk_us, 1.3, 1.1),
    ]
    router, litellm = (measured.gateways.get(name, Numbers()) for name in (ROUTER, LITELLM))
    lines += [
        _at_most(f"CPU of a request : {ROUTER}", ours.request_us, router.request_us, 1.5, 1.0),
        _at_most(f"CPU of a chunk : {ROUTER}", ours.chunk_us, router.chunk_us, 1.1, 1.0),
        _at_least(f"{LITELLM} : Stoker, CPU of a request", litellm.request_us, ours.request_us, 80),
        _at_least(f"{LITELLM} : Stoker, CPU of a chunk", litellm.chunk_us, ours.chunk_us, 25),
    ]
    added = added_ms(measured, OURS)
    lines.append(
        Line(f"first byte at {LIGHT_RATE} requests/s, added at the median", f"{added:.2f} ms", "≤ 1.5 ms", added <= 1.5)
    )
    lines.append(
        Line(
            f"memory of {OPEN_STREAMS:,} open streams", f"{ours.streams_mb:.0f} MB", "≤ 110 MB", ours.streams_mb <= 110
        )
    )
    for what, seconds, limit in (
        ("key revoked → refused", measured.revoked, 5.0),
        ("endpoint ready → used", measured.ready, 0.5),
    ):
        lines.append(Line(what, f"{max(seconds):.2f} s", f"≤ {limit:g} s", max(seconds) <= limit))
    return lines


def added_ms(measured: Measured, name: str) -> float:
    """Median over the rounds of what a gateway adds to the first byte."""
    gateway, direct = measured.gateways[name].first_byte_ms, measured.gateways[DIRECT].first_byte_ms
    return statistics.median(through - alone for through, alone in zip(gateway, direct, strict=True))


def build_page(measured: Measured, keys: int, repeats: int) -> str:
    """The whole page."""
    facts = {"rounds": measured.rounds, "keys": f"{keys:,}", "repeats": repeats, "streams": STREAMS}
    facts |= {"slow": SLOW_STREAMS, "chunks": CHUNKS, "rate": LIGHT_RATE, "open": f"{OPEN_STREAMS:,}"}
    text = [INTRODUCTION.format(**facts), measured.machine, ""]
    text += [
        "## Targets",
        "",
        "| what | measured | target | met | stretch |",
        "| --- | ---: | ---: | --- | ---: |",
        *(f"| {x.what} | {x.measured} | {x.target} | {x.verdict} | {x.stretch} |" for x in build_lines(measured)),
        "",
        "## Side by side",
        "",
        "CPU and requests per second on one core are relative to bare Envoy's.",
        "",
        "| gateway | CPU of a request | CPU of a chunk | requests/s | first byte, added | chunk under way, p50 / p99 | memory at rest | of 1,000 streams |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(measured, name) for name in measured.gateways if name != DIRECT),
        "",
        *(f"Not measured: {line}" for line in measured.skipped),
        *([""] if measured.skipped else []),
        "![CPU of a request and of a chunk beside bare Envoy](gateway.png)",
        "",
        NOTES.format(**facts),
    ]
    return "\n".join(text)


def _row(measured: Measured, name: str) -> str:
    gateway, bare = measured.gateways[name], measured.gateways[BARE]
    version = next((f" {peer.version}" for peer in PEERS if peer.name == name), "")
    chunk = [statistics.median(run[place] for run in gateway.delivery_ms) for place in (0, 1)]
    cells = [
        f"**{name}**" if name == OURS else name + version,
        _ratio(gateway.request_us, bare.request_us),
        _ratio(gateway.chunk_us, bare.chunk_us),
        _ratio(gateway.per_second, bare.per_second),
        f"{added_ms(measured, name):.2f} ms",
        f"{chunk[0]:.2f} / {chunk[1]:.2f} ms",
        f"{gateway.idle_mb:.0f} MB" if gateway.idle_mb else "–",
        f"{gateway.streams_mb:.0f} MB" if gateway.streams_mb else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _at_most(what: str, ours: list[float], theirs: list[float], limit: float, stretch: float) -> Line:
    wanted = f"≤ {limit:g}"
    if not theirs:
        return Line(what, "–", wanted, None, f"{stretch:g}")
    return Line(what, _ratio(ours, theirs), wanted, median_ratio(ours, theirs)[0] <= limit, f"{stretch:g}")


def _at_least(what: str, theirs: list[float], ours: list[float], limit: float) -> Line:
    wanted = f"≥ {limit:g}"
    if not theirs:
        return Line(what, "–", wanted, None)
    return Line(what, _ratio(theirs, ours), wanted, median_ratio(theirs, ours)[0] >= limit)


def _ratio(ours: list[float], theirs: list[float]) -> str:
    middle, least, most = median_ratio(ours, theirs)
    return f"{_short(middle)} ({_short(least)}–{_short(most)})"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 20 else f"{number:.2f}"
