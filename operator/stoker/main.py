"""`stoker operator`: waits for its turn, then listens, reconciles and renews its lease until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, cast

import kopf
import uvloop
from prometheus_client import REGISTRY

from stoker import __version__
from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache
from stoker.cluster.client import KubeClient
from stoker.cluster.errors import ApiError
from stoker.cluster.events import EventPoster
from stoker.cluster.lease import LeaderLease
from stoker.cluster.load import LoadReader
from stoker.cluster.progress import watch_downloads
from stoker.cluster.resource_types import OWN_TYPES, RESOURCE_SLICES
from stoker.cluster.sweep import Sweeper
from stoker.environment import Environment
from stoker.handlers.watch import Heard, build_registry, build_settings, watched_types
from stoker.health import HealthServer
from stoker.logs import set_up_logging
from stoker.reconcile.context import Context
from stoker.reconcile.metrics import EVENTS_DROPPED, LEADING, QUEUE_DEPTH, QUEUE_RUNNING, count_request
from stoker.reconcile.scaling_loop import ScalingLoop
from stoker.reconcile.scaling_report import ScalingCollector, explain
from stoker.reconcile.usage import watch_usage
from stoker.reconcile.work_queue import WorkQueue
from stoker.reconcile.worker import Worker
from stoker.settings import ProcessSettings, read_settings

logger = logging.getLogger(__name__)

# No reconcile takes longer than a few requests with their timeouts.
STUCK_SECONDS = 180.0
# What is in hand at the end may finish; a write that is cut off is repeated by the next leader.
FINISH_SECONDS = 1.0
CRD_POLL_SECONDS = 2.0
# Enough to keep the controllers of Kubernetes busy, few enough that a new Deployment is not long behind others.
MOST_STARTING = 40
SWEEP_SECONDS = 600.0
# Objects come by the thousand and stay: the default of 700 looks through all of them far too often.
GC_THRESHOLDS = (50_000, 20, 50)
# A list after a gap comes object by object; when it has been quiet for this long it is over.
LIST_QUIET_SECONDS = 2.0


class Operator:
    """One operator process."""

    def __init__(self, settings: OperatorSettings, process: ProcessSettings, client: KubeClient) -> None:
        self._process = process
        self._client = client
        self._lease = LeaderLease(client, process.lease_namespace, process.lease_name, process.identity)
        cache = Cache(namespaces_known=settings.cluster_scoped)
        self._queue = WorkQueue(may_start=lambda: cache.starting() < MOST_STARTING)
        self._context = Context(
            client=client,
            cache=cache,
            settings=settings,
            queue=self._queue,
            events=EventPoster(client, process.identity),
        )
        self._heard = Heard()
        self._sweeper = Sweeper(client, cache, process.namespaces, lose=self._context.lose)
        self._scaling = ScalingLoop(self._context, LoadReader())
        self._all_heard = asyncio.Event()
        self._stop = asyncio.Event()
        self._waiting_for = "the resource definitions: kubectl apply -k crds/"
        self._health = HealthServer(
            healthy=self._check_health,
            ready=lambda: self._waiting_for,
            collect=self._collect,
            explain_scaling=lambda namespace, name: explain(self._scaling, (namespace, name)),
        )
        REGISTRY.register(ScalingCollector(self._scaling))

    async def run(self) -> int:
        """Run until told to stop; the exit status."""
        self._catch_signals()
        await self._health.start(self._process.http_port)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            return await self._until(stopped, self._lead())
        finally:
            await self._lease.release()
            await self._health.stop()

    async def _until(self, stopped: asyncio.Task[bool], work: Coroutine[Any, Any, int]) -> int:
        """The result of ``work``, or 0 when the order to stop comes first."""
        task = asyncio.create_task(work)
        await asyncio.wait((stopped, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        logger.info("stopping")
        await self._let_finish()
        await self._lease.release()
        task.cancel()
        await asyncio.wait((task,), timeout=FINISH_SECONDS)
        return 0

    async def _lead(self) -> int:
        await self._wait_for_definitions()
        self._waiting_for = ""
        await self._lease.acquire()
        LEADING.set(1)
        jobs = {
            asyncio.create_task(job, name=name)
            for name, job in (
                ("the lease", self._lease.hold()),
                ("Kopf", self._listen()),
                ("the work queue", self._work()),
                ("events", self._context.events.run()),
                ("download progress", watch_downloads(self._context.cache, self._context.enqueue)),
                ("the autoscaler", self._scale()),
                ("usage of keys", watch_usage(self._context)),
                ("the sweep", self._sweep()),
            )
        }
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for job in jobs:
                job.cancel()
        for job in done:
            error = job.exception()
            logger.error(
                "%s ended%s; exiting, so that another process can lead", job.get_name(), f": {error!r}" if error else ""
            )
        if not self._lease.leading:
            # Somebody else may act already: not one more write, not even a tidy one.
            os._exit(1)
        return 1

    async def _wait_for_definitions(self) -> None:
        while True:
            try:
                if all([await self._client.is_served(resource) for resource in OWN_TYPES]):
                    self._context.slices_served = await self._client.is_served(RESOURCE_SLICES)
                    return
                logger.warning("waiting for %s", self._waiting_for)
            except ApiError as error:
                logger.warning("waiting for the API server: %s", error)
            await asyncio.sleep(CRD_POLL_SECONDS)

    async def _listen(self) -> None:
        """Run Kopf until one of its tasks ends; none ever should.

        Not by ``kopf.run_tasks``: at its end that waits for every task of the process and cancels it, ours included.
        """
        namespaces = self._process.namespaces
        tasks = await kopf.spawn_tasks(
            registry=build_registry(self._context, self._heard, self._client.connection),
            settings=build_settings(),
            # Without one Kopf asks for the login name, which a numeric user in a container does not have.
            identity=cast(Any, self._process.identity),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        # Kopf takes the signals over; its own end takes seconds and gives no lease back.
        self._catch_signals()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for task in done:
            task.result()

    async def _work(self) -> None:
        await self._sweeper.wait_until_heard(watched_types(self._context))
        logger.info("all heard: %d events, %d objects to look at", self._heard.events, self._queue.depth)
        # What was read stays; looking through it for garbage again and again took a fifth of the time with a thousand models.
        gc.collect()
        gc.freeze()
        self._all_heard.set()
        await self._queue.run(self._process.workers, Worker(self._context))

    async def _scale(self) -> None:
        """Not before all has been heard: a replica that is not known yet would be taken for one that is missing."""
        await self._all_heard.wait()
        await self._scaling.run()

    async def _sweep(self) -> None:
        """After a list of Kopf's, and now and then: look whether something went unheard."""
        loop = asyncio.get_running_loop()
        swept_at = dict.fromkeys(watched_types(self._context), loop.time())
        while True:
            await asyncio.sleep(1.0)
            for resource, last in swept_at.items():
                now, listed = loop.time(), self._heard.listed_at[resource]
                if (listed > last and now - listed > LIST_QUIET_SECONDS) or now - last > SWEEP_SECONDS:
                    swept_at[resource] = now
                    try:
                        await self._sweeper.sweep(resource)
                    except ApiError as error:
                        logger.warning("sweep of %s: %s", resource.plural, error)

    async def _let_finish(self) -> None:
        """Hand out no more work, and wait a moment for what is in hand."""
        self._queue.close()
        for _ in range(int(FINISH_SECONDS / 0.02)):
            if not self._queue.running:
                return
            await asyncio.sleep(0.02)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _check_health(self) -> str:
        stuck = self._queue.stuck_for() if self._lease.leading else 0.0
        return f"the work queue has not moved for {stuck:.0f} seconds" if stuck > STUCK_SECONDS else ""

    def _collect(self) -> None:
        LEADING.set(self._lease.leading)
        QUEUE_DEPTH.set(self._queue.depth)
        QUEUE_RUNNING.set(self._queue.running)
        EVENTS_DROPPED.set(self._context.events.dropped)


async def run_operator(settings: OperatorSettings, process: ProcessSettings) -> NoReturn:
    """Connect, run, and end the process."""
    async with await KubeClient.connect(observer=count_request) as client:
        logger.info("stoker %s, API server %s", __version__, client.connection.server)
        status = await Operator(settings, process, client).run()
    logging.shutdown()
    sys.stdout.flush()
    # Not by returning: the loop would then wait for tasks of Kopf that answer no cancellation while a watch is open.
    os._exit(status)


def main() -> int:
    """Entry point of the role ``operator``."""
    gc.set_threshold(*GC_THRESHOLDS)
    settings, process = read_settings(Environment())
    set_up_logging(process.log_level)
    uvloop.run(run_operator(settings, process))
