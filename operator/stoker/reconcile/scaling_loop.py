"""The autoscaler's loop: every two seconds, and at once when a sleeping model is asked for.

Reads gateways and agents, asks the policy, and says in `Context.scaled` how many replicas there shall be and what the status
shall tell; the reconcile writes both. So replicas have one writer, and an operator that starts again finds everything in the
cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from stoker.api import ModelDeployment
from stoker.api.names import OVERRIDE_ANNOTATION, RESOLVED_ANNOTATION, short_digest
from stoker.api.observed import Loading, ObservedPod, ObservedWorkload
from stoker.cluster.cache import Key
from stoker.cluster.errors import ApiError
from stoker.cluster.load import EngineReading, GatewayAnswer, GatewayReading, LoadReader
from stoker.cluster.observe import observe_deployment
from stoker.cluster.resource_types import DEPLOYMENTS
from stoker.desired.chosen import read_chosen
from stoker.desired.gateway_pod import COMPONENT as GATEWAY
from stoker.desired.replicas import decide_replicas, is_stopped, read_override
from stoker.errors import Stalled
from stoker.reconcile.context import Context, Scaled
from stoker.reconcile.gateway_streams import GatewayPod, GatewayStreams
from stoker.reconcile.metrics import SCALING_PERIOD, SCALING_ROUND
from stoker.reconcile.report import reference_to
from stoker.reconcile.routing import restore_routing, take_out_of_routing
from stoker.reconcile.scaled_model import ScaledModel, build_sample, choose_leaving, live_pods, observe_replicas
from stoker.scaling import EngineLoad, GatewayLoad
from stoker.scaling.schedule import build_policy
from stoker.status.loading import compute_loading

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 2.0
OVERRIDE = "Override"
# Decisions for hundreds of models take a while; wake-ups and reconciles go on in between. Not more often: whenever the round
# lets others go first, all that are ready go, and in a storm of reconciles that is a tenth of a second.
_AT_ONCE_SECONDS = 0.01

Readings = dict[Key, EngineReading | None]
"""By pod: None where the agent was asked and did not answer."""


def steady_clock() -> Callable[[], float]:
    """Unix time that goes on evenly when somebody sets the machine's clock."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class ScalingLoop:
    """Decides for all models that scale themselves."""

    def __init__(self, context: Context, reader: LoadReader, clock: Callable[[], float] | None = None) -> None:
        self._context = context
        self._cache = context.cache
        self._reader = reader
        self._clock = clock or steady_clock()
        self._streams = GatewayStreams(reader, self._clock, self._on_answer)
        self._gateways: dict[Key, list[GatewayPod]] = {}
        self._engines: Readings = {}
        self._resolved: dict[Key, tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.models: dict[Key, ScaledModel] = {}

    @property
    def connected_gateways(self) -> int:
        """Gateway pods whose stream is open."""
        return self._streams.connected

    async def run(self) -> None:
        """Decide until cancelled."""
        loop = asyncio.get_running_loop()
        async with self._reader:
            due = loop.time()
            before: float | None = None
            try:
                while True:
                    started = loop.time()
                    if before is not None:
                        SCALING_PERIOD.observe(started - before)
                    before = started
                    try:
                        await self.tick()
                    except Exception:
                        logger.exception("the autoscaler's round failed; the next one comes")
                    SCALING_ROUND.observe(loop.time() - started)
                    due = max(due + PERIOD_SECONDS, loop.time())
                    await asyncio.sleep(due - loop.time())
            finally:
                await self._streams.close()

    async def tick(self) -> None:
        """One round over all models."""
        scaled = {
            model.key: model for model in self._cache.models() if model.spec.autoscaling and not model.spec.suspend
        }
        for key in set(self.models) - set(scaled):
            del self.models[key]
            self._resolved.pop(key, None)
            self._context.scaled.pop(key, None)
        for key, model in scaled.items():
            self._meet(key, model)
        self._gateways = dict(self._find_gateways())
        self._streams.follow([pod for pods in self._gateways.values() for pod in pods])
        await asyncio.gather(self._ask_gateways(), self._ask_engines(scaled))
        began = time.monotonic()
        for key, model in scaled.items():
            try:
                self._decide(key, model)
            except Exception:
                # Of one model only: the others shall not stand still with it.
                logger.exception("ModelDeployment %s/%s could not be decided on", *key)
            if time.monotonic() - began > _AT_ONCE_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()
        await self._tell_loading()

    def _meet(self, key: Key, model: ModelDeployment) -> None:
        """Begin with a new model where it is, or go on where an earlier operator left off."""
        known, fingerprint = self.models.get(key), self._fingerprint(key)
        if known is not None:
            if fingerprint != known.fingerprint:
                known.forget(fingerprint)
            return
        child = self._cache.child(DEPLOYMENTS, key)
        present = child["spec"].get("replicas") if child else None
        try:
            desired = decide_replicas(model, None, present)
        except Stalled:
            # The reconcile tells; meanwhile nothing changes.
            desired = present or 0
        self.models[key] = ScaledModel.restored(model, desired, fingerprint, self._clock())
        self._publish(key, self.models[key], enqueue=False)

    def _fingerprint(self, key: Key) -> str:
        """Changes with model, engine and devices."""
        child = self._cache.child(DEPLOYMENTS, key)
        text = str(((child or {}).get("metadata", {}).get("annotations") or {}).get(RESOLVED_ANNOTATION, ""))
        known = self._resolved.get(key)
        if known is None or known[0] != text:
            chosen = read_chosen(child)
            parts = (chosen.model, chosen.engine, chosen.engine_image) if chosen else ("",)
            known = self._resolved[key] = (text, short_digest(" ".join(parts)))
        return known[1]

    def _find_gateways(self) -> Iterator[tuple[Key, list[GatewayPod]]]:
        """Those that publish a model which scales itself or holds requests; of others nobody wants to know anything."""
        models = (model for model in self._cache.models() if model.spec.autoscaling or model.spec.cold_start)
        wanted = {name for model in models for name in model.status.gateways}
        for gateway in self._cache.gateways():
            token = self._context.gateway_tokens.get(gateway.key)
            if token and "/".join(gateway.key) in wanted:
                pods = self._cache.pods_of("ApiGateway", gateway.key)
                found = [
                    GatewayPod((gateway.key[0], pod.name), pod.pod_ip, gateway.key, token, _stays(pod))
                    for pod in pods
                    if pod.pod_ip and pod.component == GATEWAY and pod.phase not in ("Succeeded", "Failed")
                ]
                yield gateway.key, found

    async def _ask_gateways(self) -> None:
        pods = [pod for pods in self._gateways.values() for pod in pods]
        answers = await asyncio.gather(*(self._reader.read_gateway(pod.ip, pod.token) for pod in pods))
        for pod, answer in zip(pods, answers, strict=True):
            if answer is not None:
                self._streams.take(pod, answer)

    async def _ask_engines(self, models: dict[Key, ModelDeployment]) -> None:
        asked = {
            (key[0], pod.name): pod.pod_ip
            for key in models
            for pod in self._cache.pods_of("ModelDeployment", key)
            if pod.pod_ip and (pod.ready or pod.terminating)
        }
        answers = await asyncio.gather(*(self._reader.read_engine(ip) for ip in asked.values()))
        self._engines = dict(zip(asked, answers, strict=True))

    def _on_answer(self, pod: GatewayPod, answer: GatewayAnswer) -> None:
        """A line of a gateway: somebody may be waiting for a model that sleeps."""
        for name in {*answer.wanted, *(name for name, model in answer.models.items() if model.held > 0)}:
            namespace, _, model_name = name.partition("/")
            key = (namespace, model_name)
            state, model = self.models.get(key), self._cache.model(key)
            if state is None or model is None or state.desired > 0 or is_stopped(model):
                continue
            logger.info("ModelDeployment %s is asked for at gateway pod %s/%s", name, *pod.key)
            self._decide(key, model, asked_at=pod.key if name in answer.wanted else None)

    def _decide(self, key: Key, model: ModelDeployment, *, asked_at: Key | None = None) -> None:
        """Ask the policy for one model, and see to it that what it says happens."""
        state, scaling = self.models.get(key), model.spec.autoscaling
        if state is None or scaling is None:
            return
        now = self._clock()
        pods = self._cache.pods_of("ModelDeployment", key)
        seen = ObservedWorkload(observe_deployment(self._cache.child(DEPLOYMENTS, key)), tuple(pods))
        readings = self._readings_of(model)
        gateways = {pod.key[1]: _gateway_load(reading, asked=pod.key == asked_at) for pod, reading in readings.items()}
        engines = self._engine_loads(key[0], pods, readings)
        sample = build_sample(now, gateways, pods, engines)
        replicas = observe_replicas(state, seen, now)
        spec = build_policy(scaling, model.spec.max_concurrent_requests, now)
        try:
            override = read_override(model)
        except Stalled:
            return
        record = state.decide(now, (sample,), replicas, spec, dry=override is not None)
        if override is not None:
            words = f"annotation {OVERRIDE_ANNOTATION} asks for {override}"
            self._follow(key, model, override, OVERRIDE, words, engines, pods)
            return
        decision = record.decision
        self._follow(key, model, decision.desired, decision.reason, decision.message, engines, pods)

    def _follow(
        self,
        key: Key,
        model: ModelDeployment,
        desired: int,
        reason: str,
        message: str,
        engines: dict[str, EngineLoad | None],
        pods: list[ObservedPod],
    ) -> None:
        state, now = self.models[key], self._clock()
        before, changed = state.desired, desired != state.desired
        if not changed:
            said, at = state.status, self._context.now()
            overridden = (reason == OVERRIDE) != (said.reason == OVERRIDE)
            if overridden or (reason != OVERRIDE and state.has_new_reason(now)):
                state.tell(reason, message, now=now, at=at, changed=False)
                self._publish(key, state)
            elif state.has_learned(now):
                state.tell(said.reason, said.message, now=now, at=at, changed=False)
                self._publish(key, state)
            self._mend_routing(key, state, pods)
            return
        state.desired, state.changed_at = desired, now
        state.tell(reason, message, now=now, at=self._context.now(), changed=True)
        logger.info("ModelDeployment %s/%s: %s (%s)", *key, message, reason)
        self._post_event(key, "ScaledUp" if desired > before else "ScaledDown", f"{message} ({reason})")
        if desired > before:
            self._publish(key, state)
        else:
            state.shrinking = True
            self._start(self._shrink(key, state, before, choose_leaving(pods, desired, engines)))

    async def _shrink(self, key: Key, state: ScaledModel, before: int, leaving: list[str]) -> None:
        """Who goes gets no more requests; only then are there to be fewer. Meanwhile the number may have changed again."""
        target = state.desired
        try:
            await asyncio.gather(*(take_out_of_routing(self._context.client, key[0], name) for name in leaving))
        except ApiError as error:
            logger.warning("ModelDeployment %s/%s is not scaled down now: %s", *key, error)
            if state.desired == target:
                state.desired = before
        finally:
            state.shrinking = False
        if state.desired > target:
            # Somebody has asked in the meantime; it was not written down yet that there shall be fewer.
            await restore_routing(self._context.client, key[0], leaving)
        if self.models.get(key) is state:
            self._publish(key, state)

    def _mend_routing(self, key: Key, state: ScaledModel, pods: list[ObservedPod]) -> None:
        """Who was to go and is needed after all gets requests again; also after an operator that ended in between."""
        live = live_pods(pods)
        marked = [pod.name for pod in live if not pod.routable]
        if marked and len(live) <= state.desired and not state.shrinking:
            self._start(restore_routing(self._context.client, key[0], marked))

    def _publish(self, key: Key, state: ScaledModel, *, enqueue: bool = True) -> None:
        self._context.scaled[key] = Scaled(state.desired, state.status)
        if enqueue:
            self._context.enqueue("ModelDeployment", key, urgent=True)

    def _readings_of(self, model: ModelDeployment) -> dict[GatewayPod, GatewayReading | None]:
        """What the gateways that publish a model say of it; None for one that should say something and does not.

        A gateway that does not know the model yet has nothing to say, and neither has one that comes or goes.
        """
        found: dict[GatewayPod, GatewayReading | None] = {}
        name = "/".join(model.key)
        for gateway in model.status.gateways:
            namespace, _, gateway_name = gateway.partition("/")
            for pod in self._gateways.get((namespace, gateway_name), ()):
                readings = self._streams.newest(pod)
                if readings is None:
                    if pod.serving:
                        found[pod] = None
                elif name in readings:
                    found[pod] = readings[name]
        return found

    def _engine_loads(
        self, namespace: str, pods: list[ObservedPod], gateways: dict[GatewayPod, GatewayReading | None]
    ) -> dict[str, EngineLoad | None]:
        """By pod. Where an engine does not count its requests, the gateways' count stands in, if all of them tell it."""
        told = list(gateways.values())
        loads: dict[str, EngineLoad | None] = {}
        for pod in pods:
            reading = self._engines.get((namespace, pod.name))
            if reading is None:
                loads[pod.name] = None
            elif reading.running is not None:
                loads[pod.name] = EngineLoad(reading.running, reading.waiting or 0.0)
            elif all(each is not None for each in told):
                loads[pod.name] = EngineLoad(sum(_at(pod.pod_ip, each) for each in told if each), 0.0)
            else:
                loads[pod.name] = None
        return loads

    async def _tell_loading(self) -> None:
        """Gateways tell waiting callers how far their model is."""
        by_gateway: dict[Key, dict[str, Loading]] = {}
        for model in self._cache.models():
            if model.spec.autoscaling is None and model.spec.cold_start is None:
                continue
            pods = self._cache.pods_of("ModelDeployment", model.key)
            if is_stopped(model) or any(_stays(pod) for pod in pods) or not self._is_wanted(model):
                continue
            state = self.models.get(model.key)
            usual = state.learned.cold_start_seconds if state else None
            loading = compute_loading(model, pods, cold_start_seconds=usual, now=self._clock())
            for gateway in model.status.gateways:
                namespace, _, name = gateway.partition("/")
                by_gateway.setdefault((namespace, name), {})["/".join(model.key)] = loading
        await asyncio.gather(
            *(
                self._reader.tell_loading(pod.ip, pod.token, loading)
                for gateway, loading in by_gateway.items()
                for pod in self._gateways.get(gateway, ())
            )
        )

    def _is_wanted(self, model: ModelDeployment) -> bool:
        state = self.models.get(model.key)
        return state.desired > 0 if state else model.status.desired_replicas > 0

    def _post_event(self, key: Key, reason: str, note: str) -> None:
        own = self._cache.own("ModelDeployment", key)
        if own is not None:
            self._context.events.post(reference_to(own), "Normal", reason, note, repeated=True)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stays(pod: ObservedPod) -> bool:
    return pod.ready and not pod.terminating


def _gateway_load(reading: GatewayReading | None, *, asked: bool) -> GatewayLoad | None:
    """``asked``: it has just said that somebody wants the model; one whom it could not let wait counts as waiting, too."""
    if reading is None:
        return None
    held = max(reading.held, 1) if asked else reading.held
    return GatewayLoad(held, reading.arrivals_total, reading.completions_total)


def _at(pod_ip: str, reading: GatewayReading) -> int:
    address = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    return sum(count for at, count in reading.endpoints.items() if at.rpartition(":")[0] == address)
