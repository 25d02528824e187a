"""Counters that all replicas of a gateway share, in Redis or Valkey.

One script looks at all counters of a request and counts it in all of them, or in none; it takes the time from Redis, so replicas need
not agree on theirs. A request waits for that word as long as Redis talks at all (see redis_line). Without Redis it is judged by this
replica's share of what was left when Redis last told (see Remembered), and after a minute by its share of the limit. What one replica
was let in beyond its share it tells the others at once, so that they know when Redis is gone. So limits are never open, and callers are
never shut out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stoker.gateway.bounds import Scope, share
from stoker.gateway.limits import SLOTS, Counters, Reading
from stoker.gateway.redis_line import RedisLine

if TYPE_CHECKING:
    from stoker.gateway.admission import Admissions
    from stoker.gateway.table import Table

logger = logging.getLogger(__name__)

ALIVE_SECONDS = 2.0
"""Between two signs of life; a replica that gave none for five of them holds no places."""
PREFIX = "stoker"
MOST_REMEMBERED = 20_000

SCRIPT = r"""
local now = tonumber(redis.call('TIME')[1])
local instance, alive, count = ARGV[1], ARGV[2], #KEYS
local answer, fits = {}, true
for i = 1, count do
  local kind, limit, cost = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local used, wait, reset, stale, seconds = 0, 1, 0, {}, {}
  local entries = redis.call('HGETALL', KEYS[i])
  for j = 1, #entries, 2 do
    local field, amount = entries[j], tonumber(entries[j + 1])
    if kind == 'concurrent' then
      if field == instance or redis.call('EXISTS', alive .. field) == 1 then used = used + amount else stale[#stale + 1] = field end
    elseif tonumber(field) <= now - 61 then
      stale[#stale + 1] = field
    else
      used = used + amount
      seconds[#seconds + 1] = {tonumber(field), amount}
    end
  end
  if #stale > 0 then redis.call('HDEL', KEYS[i], unpack(stale)) end
  local ok = used + cost <= limit or (kind == 'tokens' and used <= 0 and cost <= limit)
  if #seconds > 0 then
    table.sort(seconds, function(a, b) return a[1] < b[1] end)
    reset = seconds[#seconds][1] + 61 - now
    local left = used
    for _, entry in ipairs(seconds) do
      left = left - entry[2]
      wait = math.max(1, entry[1] + 61 - now)
      if left + cost <= limit then break end
    end
  end
  fits = fits and ok
  answer[#answer + 1] = {used, wait, reset}
end
if fits then
  for i = 1, count do
    local kind, cost = ARGV[3 * i], tonumber(ARGV[3 * i + 2])
    redis.call('HINCRBY', KEYS[i], kind == 'concurrent' and instance or now, cost)
    redis.call('EXPIRE', KEYS[i], kind == 'concurrent' and 86400 or 130)
  end
end
return answer
"""

CORRECT = r"""
local now = tonumber(redis.call('TIME')[1])
for i = 1, #KEYS do
  local kind, amount = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local field = kind == 'concurrent' and ARGV[1] or now
  local left = redis.call('HINCRBY', KEYS[i], field, amount)
  if kind == 'concurrent' and left <= 0 then redis.call('HDEL', KEYS[i], field) end
  redis.call('EXPIRE', KEYS[i], kind == 'concurrent' and 86400 or 130)
end
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What Redis told of a counter last."""

    at: float
    budget: int
    """Up to which this replica's own count may go without another word of Redis."""


class SharedCounters:
    """One Redis, for as long as it is configured."""

    def __init__(
        self,
        url: str,
        gateway: str,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        authorities: str = "",
    ) -> None:
        self.url = url
        self._gateway = gateway
        self._counters = counters
        self._clock = clock
        self._instance = secrets.token_hex(6)
        self._remembered: dict[tuple[str, str], Remembered] = {}
        self._news: dict[str, int] = {}
        """What the others will be told: shares of what is left, by counter."""
        self._told_places: set[str] = set()
        self._usable_from = 0.0
        self._line = RedisLine(url, {"take": SCRIPT, "correct": CORRECT}, self._lost, authorities)

    @property
    def usable(self) -> bool:
        """Whether Redis is asked. One that was away may have forgotten: for a minute its counts are not trusted."""
        return self._line.open and self._clock() >= self._usable_from

    async def run(self) -> None:
        """Connect, and show that this replica lives; endless."""
        await self._line.run(self._found, self._beat, ALIVE_SECONDS, self._channel, self._hear)

    def _found(self, first: bool) -> None:
        self._usable_from = 0.0 if first else self._clock() + SLOTS
        logger.info("limits are counted in Redis%s", "" if first else f" again, in {SLOTS} s")

    def _lost(self, error: Exception) -> None:
        logger.warning("limits are shared without Redis: %s: %s", type(error).__name__, error)

    def _beat(self) -> None:
        """A sign of life, and what this replica really has running: corrections may get lost."""
        places = {self._key("concurrent", scope.name): running for scope, running in self._counters.places().items()}
        self._line.send("SET", self._alive + self._instance, 1, "PX", int(ALIVE_SECONDS * 5000))
        for key in self._told_places - places.keys():
            self._line.send("HDEL", key, self._instance)
        for key, running in places.items():
            self._line.send("HSET", key, self._instance, running)
        self._told_places = set(places)

    def take(
        self, scopes: Sequence[Scope], tokens: int, replicas: int, done: Callable[[list[Reading] | None], None]
    ) -> None:
        """Ask Redis, which counts what fits. `done` gets the counters as they were before; None where Redis does not answer."""
        wanted = self._read(scopes, tokens)

        def heard(answer: Any) -> None:
            if answer is None:
                done(None)
                return
            # Read again: requests that were asked about before this one have been counted here since.
            own = self._read(scopes, tokens)
            readings = [
                replace(reading, used=int(used), wait=int(wait), reset=int(reset))
                for reading, (used, wait, reset) in zip(own, answer, strict=True)
            ]
            self._remember(own, readings, replicas)
            done(readings)

        parts = [part for reading in wanted for part in (reading.kind, reading.limit, reading.cost)]
        keys = [self._key(reading.kind, reading.scope.name) for reading in wanted]
        self._line.call("take", keys, [self._instance, self._alive, *parts], heard)

    def _read(self, scopes: Sequence[Scope], tokens: int) -> list[Reading]:
        return self._counters.read(tuple(scopes), tokens=tokens, replicas=1)

    def _remember(self, own: list[Reading], told: list[Reading], replicas: int) -> None:
        admitted = all(reading.fits for reading in told)
        for mine, reading in zip(own, told, strict=True):
            cost = reading.cost if admitted else 0
            # A little is left out: what others were let in since cannot be known.
            left = max(0, reading.limit - reading.used - cost - max(1, reading.limit // 60)) // max(1, replicas)
            self._learn(reading.kind, reading.scope.name, mine.used + cost + left)
            if cost and reading.kind != "concurrent" and mine.used + cost > share(reading.limit, replicas):
                if not self._news:
                    asyncio.get_running_loop().call_soon(self._tell)
                self._news[f"{reading.kind} {reading.scope.name}"] = left

    def _learn(self, kind: str, name: str, budget: int) -> None:
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[kind, name] = Remembered(self._clock(), budget)

    def _tell(self) -> None:
        """The others, of callers who have more than a share here: they may never have asked about them."""
        self._line.send("PUBLISH", self._channel, json.dumps([self._instance, self._news]))
        self._news = {}

    def _hear(self, message: str) -> None:
        """Another replica's news; they come over the network, so nothing but numbers is taken from them."""
        try:
            instance, news = json.loads(message)
            entries = [(*counter.split(" ", 1), int(left)) for counter, left in news.items()]
        except (ValueError, TypeError, AttributeError):
            return
        if instance == self._instance:
            return
        for kind, name, left in entries:
            self._learn(kind, name, self._counters.used(kind, name) + left)

    def without_redis(self, readings: list[Reading]) -> list[Reading]:
        """This replica's own counters, with what it may let in by itself."""
        now = self._clock()
        found = []
        for reading in readings:
            known = self._remembered.get((reading.kind, reading.scope.name))
            fresh = known is not None and now - known.at < SLOTS
            found.append(replace(reading, limit=min(known.budget, reading.scope_limit)) if known and fresh else reading)
        return found

    def note(self, scopes: Sequence[Scope], tokens: int) -> None:
        """A request was let in without asking; it counts all the same."""
        self._change([("requests", scope, 1) for scope in scopes if scope.bounds.requests], scopes, tokens, 1)

    def correct(self, scopes: Sequence[Scope], tokens: int) -> None:
        """A request has ended: its place is free, and so many tokens more or fewer were used than was thought."""
        self._change([], scopes, tokens, -1)

    def _change(self, changes: list[tuple[str, Scope, int]], scopes: Sequence[Scope], tokens: int, places: int) -> None:
        changes += [("concurrent", scope, places) for scope in scopes if scope.bounds.concurrent]
        changes += [("tokens", scope, tokens) for scope in scopes if scope.bounds.tokens and tokens]
        if changes:
            keys = [self._key(kind, scope.name) for kind, scope, _ in changes]
            parts = [part for kind, _, amount in changes for part in (kind, amount)]
            self._line.call("correct", keys, [self._instance, *parts])

    def _key(self, kind: str, name: str) -> str:
        # In braces what a cluster of Redis places keys by: all of a gateway's are in one place.
        return f"{PREFIX}:{{{self._gateway}}}:{kind}:{name}"

    @property
    def _alive(self) -> str:
        return f"{PREFIX}:{{{self._gateway}}}:alive:"

    @property
    def _channel(self) -> str:
        return f"{PREFIX}:{{{self._gateway}}}:news"


class FollowRedis:
    """Keeps the shared counters at the Redis that the configuration names."""

    def __init__(self, gateway: str, admissions: Admissions) -> None:
        self._gateway = gateway
        self._admissions = admissions
        self._at = "", ""
        self._task: asyncio.Task[None] | None = None

    def look(self, table: Table | None) -> None:
        """A configuration was taken over."""
        url, authorities = (table.routes.redis_url, table.routes.authorities) if table is not None else ("", "")
        if (url, authorities) == self._at:
            return
        self._at = url, authorities
        if self._task is not None:
            self._task.cancel()
        self._admissions.shared = self._task = None
        if url:
            shared = SharedCounters(url, self._gateway, self._admissions.counters, authorities=authorities)
            self._admissions.shared = shared
            self._task = asyncio.get_running_loop().create_task(self._run(shared))

    async def _run(self, shared: SharedCounters) -> None:
        try:
            await shared.run()
        except ValueError as error:
            # Not an address of Redis: each replica goes on by its share.
            logger.warning("limits are shared without Redis: %s", error)
