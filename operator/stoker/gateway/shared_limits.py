"""Counters that all replicas of a gateway share, in Redis or Valkey.

One script looks at all counters of a request and counts it in all of them, or in none; it takes the time from Redis, so replicas need
not agree on theirs. Nobody waits for Redis longer than a few milliseconds: without its answer a request is judged by this replica's
share of what was left when Redis last told (see Remembered), and after a minute by its share of the limit. So limits are never open,
and callers are never shut out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stoker.gateway.bounds import Scope
from stoker.gateway.limits import SLOTS, Counters, Reading

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from stoker.gateway.admission import Admissions
    from stoker.gateway.table import Table

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.01
"""On loopback the script takes 0.3 ms."""
FIRST_PATIENCE_SECONDS = 0.1
"""With a caller of whom this replica knows nothing yet, once a minute at most: without an answer it could only guess."""
CONNECT_SECONDS = 2.0
RETRY_SECONDS = 1.0
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

    def __init__(self, url: str, gateway: str, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._gateway = gateway
        self._counters = counters
        self._clock = clock
        self._instance = secrets.token_hex(6)
        self._remembered: dict[tuple[str, str], Remembered] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._redis: Redis | None = None
        self._scripts: dict[str, Any] = {}
        self._told_places: set[str] = set()
        self._usable_from = float("inf")
        self.up = False
        """Redis answered last."""

    @property
    def usable(self) -> bool:
        """Whether Redis is asked. One that was away may have forgotten: for a minute its counts are not trusted."""
        return self.up and self._clock() >= self._usable_from

    async def run(self) -> None:
        """Connect, and show that this replica lives; endless."""
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        self._redis = Redis.from_url(
            self.url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS, decode_responses=True
        )
        self._scripts = {
            name: self._redis.register_script(text) for name, text in (("take", SCRIPT), ("correct", CORRECT))
        }
        first = True
        try:
            while True:
                try:
                    await self._redis.set(self._alive + self._instance, 1, px=int(ALIVE_SECONDS * 5000))
                    await self._tell_places(self._redis)
                    if not self.up:
                        self._usable_from = 0.0 if first else self._clock() + SLOTS
                        self.up = True
                        logger.info("limits are counted in Redis%s", "" if first else f" again, in {SLOTS} s")
                    first = False
                    await asyncio.sleep(ALIVE_SECONDS)
                except (RedisError, OSError) as error:
                    self._lost(error)
                    first = False
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._redis.aclose()

    async def _tell_places(self, redis: Redis) -> None:
        """What this replica really has running: single corrections may get lost."""
        places = {self._key("concurrent", scope): running for scope, running in self._counters.places().items()}
        for key in self._told_places - places.keys():
            await redis.hdel(key, self._instance)
        for key, running in places.items():
            await redis.hset(key, self._instance, str(running))
        self._told_places = set(places)

    def take(
        self, scopes: Sequence[Scope], tokens: int, replicas: int, done: Callable[[list[Reading] | None], None]
    ) -> None:
        """Ask Redis, which counts what fits. `done` gets the counters as they were before; None where Redis has not answered."""
        self._start(self._take(scopes, tokens, replicas, done))

    async def _take(
        self, scopes: Sequence[Scope], tokens: int, replicas: int, done: Callable[[list[Reading] | None], None]
    ) -> None:
        from redis.exceptions import RedisError

        wanted = self._counters.read(tuple(scopes), tokens=tokens, replicas=1)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if self._knows(wanted) else FIRST_PATIENCE_SECONDS):
                found = await self._call(
                    "take", wanted, [[r.kind, str(r.limit), str(r.cost)] for r in wanted], self._alive
                )
        except (RedisError, OSError) as error:
            if not isinstance(error, TimeoutError):
                self._lost(error)
            done(None)
            return
        readings = [
            replace(reading, used=int(used), wait=int(wait), reset=int(reset))
            for reading, (used, wait, reset) in zip(wanted, found, strict=True)
        ]
        self._remember(wanted, readings, replicas)
        done(readings)

    def _knows(self, readings: list[Reading]) -> bool:
        """Whether Redis has told of all these counters lately."""
        found = (self._remembered.get((reading.kind, reading.scope.name)) for reading in readings)
        return all(known is not None and self._clock() - known.at < SLOTS for known in found)

    def _remember(self, own: list[Reading], told: list[Reading], replicas: int) -> None:
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.clear()
        now, admitted = self._clock(), all(reading.fits for reading in told)
        for mine, reading in zip(own, told, strict=True):
            cost = reading.cost if admitted else 0
            # A little is left out: what others were let in since cannot be known.
            left = reading.limit - reading.used - cost - max(1, reading.limit // 60)
            budget = mine.used + cost + max(0, left) // max(1, replicas)
            self._remembered[reading.kind, reading.scope.name] = Remembered(now, budget)

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
        if changes and self.up:
            self._start(self._correct(changes))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _correct(self, changes: list[tuple[str, Scope, int]]) -> None:
        from redis.exceptions import RedisError

        keys = [self._key(kind, scope) for kind, scope, _ in changes]
        arguments = [self._instance, *(part for kind, _, amount in changes for part in (kind, str(amount)))]
        try:
            await self._scripts["correct"](keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            self._lost(error)

    async def _call(self, name: str, readings: list[Reading], parts: list[list[str]], *more: str) -> Any:
        keys = [self._key(reading.kind, reading.scope) for reading in readings]
        return await self._scripts[name](
            keys=keys, args=[self._instance, *more, *(part for three in parts for part in three)]
        )

    def _key(self, kind: str, scope: Scope) -> str:
        # In braces what a cluster of Redis places keys by: all of a gateway's are in one place.
        return f"{PREFIX}:{{{self._gateway}}}:{kind}:{scope.name}"

    @property
    def _alive(self) -> str:
        return f"{PREFIX}:{{{self._gateway}}}:alive:"

    def _lost(self, error: Exception) -> None:
        if self.up:
            logger.warning("limits are shared without Redis: %s: %s", type(error).__name__, error)
        self.up = False


class FollowRedis:
    """Keeps the shared counters at the Redis that the configuration names."""

    def __init__(self, gateway: str, admissions: Admissions) -> None:
        self._gateway = gateway
        self._admissions = admissions
        self._url = ""
        self._task: asyncio.Task[None] | None = None

    def look(self, table: Table | None) -> None:
        """A configuration was taken over."""
        url = table.redis_url if table is not None else ""
        if url == self._url:
            return
        self._url = url
        if self._task is not None:
            self._task.cancel()
        self._admissions.shared = self._task = None
        if url:
            shared = SharedCounters(url, self._gateway, self._admissions.counters)
            self._admissions.shared = shared
            self._task = asyncio.get_running_loop().create_task(self._run(shared))

    async def _run(self, shared: SharedCounters) -> None:
        try:
            await shared.run()
        except ValueError as error:
            # Not an address of Redis: each replica goes on by its share.
            logger.warning("limits are shared without Redis: %s", error)
