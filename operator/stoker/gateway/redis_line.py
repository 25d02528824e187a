"""The line to Redis: all that is to be asked goes over one connection, in order, many questions at a time.

While one round is on its way the next gathers, so a burst of calls costs a few rounds and not a connection each, and answers come in
the order of the questions. A round that is not answered in a second means that Redis is gone: then nobody waits any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
"""On loopback a round takes half a millisecond. This long also somebody waits who calls while the first connection is made."""
RETRY_SECONDS = 1.0
MOST_AT_ONCE = 200
"""Questions of one round."""


@dataclass(slots=True)
class Question:
    """A command, and who waits for its answer."""

    command: tuple[Any, ...]
    done: Callable[[Any], None] | None = None


class RedisLine:
    """Asks in rounds; says when Redis is gone, and when it is back."""

    def __init__(
        self, url: str, scripts: Mapping[str, str], lost: Callable[[Exception], None], authorities: str = ""
    ) -> None:
        self._url = url
        # Beside the public ones; without TLS there is no such setting.
        self._tls: dict[str, Any] = {"ssl_ca_data": authorities} if authorities and url.startswith("rediss:") else {}
        self._texts = scripts
        self._hashes: dict[str, str] = {}
        self._on_lost = lost
        self._redis: Redis | None = None
        self._questions: list[Question] = []
        self._round: asyncio.Task[None] | None = None
        self._up = False
        self.open = False
        """Whether questions are taken: Redis answered last, or is being looked for the first time."""

    async def run(
        self,
        found: Callable[[bool], None],
        beat: Callable[[], None],
        seconds: float,
        channel: str,
        hear: Callable[[str], None],
    ) -> None:
        """Connect, again and again; call `found` with whether Redis was never missed, then `beat` every so many seconds, and `hear`
        with what others say on the channel. Endless; ValueError where the address is none."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        first = True
        try:
            self._redis = Redis.from_url(
                self._url,
                socket_connect_timeout=PATIENCE_SECONDS,
                decode_responses=True,
                **self._tls,
                # Asked again, a script would count again; and a Redis that is back may be another one.
                retry=Retry(NoBackoff(), 0),
            )
            self.open = True
            while True:
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        for name, text in self._texts.items():
                            self._hashes[name] = await self._redis.script_load(text)
                    self._up = self.open = True
                    found(first)
                    async with asyncio.TaskGroup() as tasks:
                        listening = tasks.create_task(self._listen(self._redis, channel, hear))
                        while self._up:
                            beat()
                            await asyncio.sleep(seconds)
                        listening.cancel()
                except (RedisError, OSError) as error:
                    self._lose(error, certain=first)
                first = False
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._close()
            if self._redis is not None:
                await self._redis.aclose()

    async def _listen(self, redis: Redis, channel: str, hear: Callable[[str], None]) -> None:
        """What others say; a line that is cut is made again."""
        from redis.exceptions import NoPermissionError, RedisError

        while True:
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(channel)
                    async for message in pubsub.listen():
                        hear(message["data"])
            except NoPermissionError as error:
                logger.warning("replicas cannot tell each other what callers have left: Redis says %s", error)
                return
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_SECONDS)

    def call(
        self, script: str, keys: Sequence[str], arguments: Sequence[Any], done: Callable[[Any], None] | None = None
    ) -> None:
        """Run a script; `done` gets its answer, None where there is none."""
        if not self.open:
            if done is not None:
                done(None)
            return
        # The hash is put in when the question goes out: before the first connection it is not known.
        self._questions.append(Question(("EVALSHA", script, len(keys), *keys, *arguments), done))
        self._begin()

    def send(self, *command: Any) -> None:
        """Something whose answer does not matter."""
        if self.open:
            self._questions.append(Question(command))
            self._begin()

    def _begin(self) -> None:
        if self._up and self._questions and (self._round is None or self._round.done()):
            self._round = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        from redis.exceptions import NoScriptError, RedisError

        while self._up and self._redis is not None and self._questions:
            asked, self._questions = self._questions[:MOST_AT_ONCE], self._questions[MOST_AT_ONCE:]
            try:
                pipeline = self._redis.pipeline(transaction=False)
                for question in asked:
                    name, *rest = question.command
                    pipeline.execute_command(name, *([self._hashes[rest[0]], *rest[1:]] if name == "EVALSHA" else rest))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    answers = await pipeline.execute(raise_on_error=False)
                # A Redis without our scripts has started anew, and has forgotten everything else, too.
                if missing := next((answer for answer in answers if isinstance(answer, NoScriptError)), None):
                    raise missing
            except (RedisError, OSError) as error:
                self._questions = asked + self._questions
                self._lose(error)
                return
            for question, answer in zip(asked, answers, strict=True):
                _tell(question, None if isinstance(answer, Exception) else answer)

    def _lose(self, error: Exception, *, certain: bool = False) -> None:
        """Redis is gone; nobody waits for it. `certain`: also when it was never there."""
        told = self._up or certain
        self._close()
        if told:
            self._on_lost(error)

    def _close(self) -> None:
        self._up = self.open = False
        asked, self._questions = self._questions, []
        for question in asked:
            _tell(question, None)


def _tell(question: Question, answer: Any) -> None:
    if question.done is not None:
        try:
            question.done(answer)
        except Exception:
            # A bug of one must not keep the others waiting.
            logger.exception("an answer of Redis could not be used")
