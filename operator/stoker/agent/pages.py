"""What the agent answers, page by page."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST

from stoker.agent.config import AgentConfig
from stoker.agent.metrics import build_registry, render
from stoker.agent.server import Answer, Handler
from stoker.agent.watch import EngineWatch

MAX_PROGRESS = 64 * 1024


class Pages:
    """The agent's pages; each answers from the newest sample, so that callers cannot make the engine work."""

    def __init__(self, config: AgentConfig, watch: EngineWatch) -> None:
        self._config = config
        self._watch = watch
        self._registry = build_registry(watch, config.model, config.engine)
        self.routes: dict[str, Handler] = {
            "/healthz": self.healthz,
            "/metrics": self.metrics,
            "/ready": self.ready,
            "/load": self.load,
            "/drain": self.drain,
            "/progress": self.progress,
        }

    async def healthz(self) -> Answer:
        """The agent itself is alive, whatever the engine does."""
        return Answer.of({"status": "ok"})

    async def metrics(self) -> Answer:
        """For Prometheus."""
        return Answer(200, render(self._registry), CONTENT_TYPE_LATEST)

    async def ready(self) -> Answer:
        """200 means: the model is loaded and the engine answers."""
        sample = self._watch.sample
        if sample is not None and sample.loaded:
            return Answer.of({"ready": True})
        if sample is None:
            reason = "the engine has not been asked yet, or not lately"
        elif not sample.listening:
            reason = "the engine does not listen yet"
        elif not sample.up:
            reason = "the engine does not answer"
        else:
            reason = "the engine is loading the model"
        return Answer.of({"ready": False, "reason": reason}, 503)

    async def load(self) -> Answer:
        """For the autoscaler; null is unknown, which is not zero."""
        sample = self._watch.sample
        age = None if sample is None else round(asyncio.get_running_loop().time() - sample.at, 3)
        return Answer.of(
            {
                "model": self._config.model,
                "engine": self._config.engine,
                "up": sample is not None and sample.up,
                "modelLoaded": sample and sample.loaded,
                "requestsRunning": sample and _count(sample.running),
                "requestsWaiting": sample and _count(sample.waiting),
                "kvCacheUsedRatio": sample and sample.kv_cache_used,
                "promptTokensTotal": sample and _count(sample.prompt_tokens),
                "completionTokensTotal": sample and _count(sample.completion_tokens),
                "ageSeconds": age,
            }
        )

    async def drain(self) -> Answer:
        """For the engine's preStop hook: comes back when the engine may be stopped."""
        started = asyncio.get_running_loop().time()
        end = await self._watch.drain(self._config.drain_timeout_seconds)
        return Answer.of(
            {
                "drained": end != "TimedOut",
                "reason": end,
                "seconds": round(asyncio.get_running_loop().time() - started, 1),
            }
        )

    async def progress(self) -> Answer:
        """What `stoker fetch` last wrote, as it is; 404 where nothing is downloaded."""
        path = Path(self._config.progress_file)
        try:
            # Read without a thread: a file of a few hundred bytes on an emptyDir.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                content = os.read(descriptor, MAX_PROGRESS)
            finally:
                os.close(descriptor)
        except OSError:
            return Answer.of({"error": "no download has been started in this pod"}, 404)
        return Answer(200, content)


def _count(value: float | None) -> int | None:
    return None if value is None else int(value)
