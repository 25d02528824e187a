from __future__ import annotations

from typing import Any

import kopf
import pytest
from unit.cluster.test_cache import model, obj

from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache
from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection
from stoker.cluster.events import EventPoster
from stoker.cluster.resource_types import DEPLOYMENTS, MODEL_DEPLOYMENTS, NAMESPACES, RESOURCE_SLICES, SECRETS
from stoker.handlers.watch import CHILD_SELECTOR, Heard, build_registry, build_settings, watched_types
from stoker.reconcile.context import CHILD_DELAY_IN_CROWD_SECONDS, CHILD_DELAY_SECONDS, CROWD, Context
from stoker.reconcile.work_queue import WorkKey, WorkQueue

CONNECTION = Connection(server="http://127.0.0.1:1", token="secret")


class Queue(WorkQueue):
    """Notes what is put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[WorkKey] = []
        self.delays: list[float] = []
        self.waiting = 0

    @property
    def depth(self) -> int:
        return self.waiting

    def add(self, key: WorkKey, *, delay: float = 0.0, urgent: bool = False) -> None:
        self.added.append(key)
        self.delays.append(delay)


@pytest.fixture
async def context() -> Any:
    async with KubeClient(CONNECTION) as client:
        settings = OperatorSettings(stoker_image="stoker:1")
        yield Context(client, Cache(namespaces_known=True), settings, Queue(), EventPoster(client, "x"))


def handlers(context: Context) -> dict[str, Any]:
    registry = build_registry(context, Heard(), CONNECTION)
    return {handler.id: handler.fn for handler in registry._watching.get_all_handlers()}


async def test_kopf_only_listens(context: Context) -> None:
    registry = build_registry(context, Heard(), CONNECTION)
    assert registry._watching.get_all_handlers()
    for writing in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert not writing.get_all_handlers()
    settings = build_settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled


async def test_children_are_watched_by_label_and_secrets_not_at_all(context: Context) -> None:
    selectors = build_settings().watching.label_selectors
    assert selectors["apps", "v1", "deployments"] == CHILD_SELECTOR
    assert selectors["", "v1", "pods"] == CHILD_SELECTOR
    assert SECRETS not in watched_types(context)


async def test_a_change_reaches_the_cache_and_the_queue(context: Context) -> None:
    on = handlers(context)
    await on["on_modeldeployments"](event={"type": "ADDED", "object": model("a")})
    assert context.cache.model(("team", "a"))
    assert context.queue.added[0] == ("ModelDeployment", "team", "a")
    context.queue.added.clear()
    await on["on_modeldeployments"](event={"type": "DELETED", "object": model("a", 2)})
    assert context.cache.model(("team", "a")) is None
    assert ("ModelDeployment", "team", "a") in context.queue.added


async def test_a_child_leads_to_its_owner_also_when_it_is_gone(context: Context) -> None:
    owner = {"ownerReferences": [{"kind": "ModelDeployment", "name": "a", "uid": "u", "controller": True}]}
    on, child = handlers(context), obj(DEPLOYMENTS, "a", 5, metadata=owner)
    for kind in ("MODIFIED", "DELETED"):
        await on["on_deployments"](event={"type": kind, "object": child})
    assert context.queue.added == [("ModelDeployment", "team", "a")] * 2


async def test_while_a_crowd_waits_an_owner_is_looked_at_less_often(context: Context) -> None:
    owner = {"ownerReferences": [{"kind": "ModelDeployment", "name": "a", "uid": "u", "controller": True}]}
    for version, waiting in ((5, 0), (6, CROWD)):
        context.queue.waiting = waiting
        context.take(DEPLOYMENTS, obj(DEPLOYMENTS, "a", version, metadata=owner))
    assert context.queue.delays == [CHILD_DELAY_SECONDS, CHILD_DELAY_IN_CROWD_SECONDS]


async def test_the_echo_of_a_write_of_ours_is_not_looked_at_again(context: Context) -> None:
    context.cache.put(MODEL_DEPLOYMENTS, model("a"))
    written = {**model("a", 2), "status": {"replicas": 1}}
    context.take_written(MODEL_DEPLOYMENTS, written)
    await handlers(context)["on_modeldeployments"](event={"type": "MODIFIED", "object": written})
    assert ("ModelDeployment", "team", "a") not in context.queue.added


async def test_a_status_edited_by_somebody_else_is_looked_at(context: Context) -> None:
    context.cache.put(MODEL_DEPLOYMENTS, model("a"))
    edited = {**model("a", 2), "status": {"replicas": 7}}
    await handlers(context)["on_modeldeployments"](event={"type": "MODIFIED", "object": edited})
    assert ("ModelDeployment", "team", "a") in context.queue.added


async def test_namespaces_are_not_watched_where_they_may_not_be_read(context: Context) -> None:
    assert NAMESPACES in watched_types(context)
    context.settings = OperatorSettings(stoker_image="stoker:1", cluster_scoped=False)
    assert NAMESPACES not in watched_types(context)


async def test_resource_slices_are_watched_only_where_the_cluster_serves_them(context: Context) -> None:
    assert RESOURCE_SLICES not in watched_types(context)
    context.slices_served = True
    assert RESOURCE_SLICES in watched_types(context)
    context.settings = OperatorSettings(stoker_image="stoker:1", cluster_scoped=False)
    assert RESOURCE_SLICES not in watched_types(context)


async def test_kopf_logs_in_as_our_client_does(context: Context) -> None:
    registry = build_registry(context, Heard(), CONNECTION)
    (login,) = [handler for handler in registry._activities.get_all_handlers() if handler.id == "on_login"]
    info = login.fn()
    assert isinstance(info, kopf.ConnectionInfo)
    assert (info.server, info.token) == ("http://127.0.0.1:1", "secret")
