"""Against a fake API server: what is asked of the log of an engine that ended, and what is made of it."""

from __future__ import annotations

from aiohttp import web
from unit.cluster.fake_api_server import Answer, serving, status

from stoker.api.observed import ObservedContainer, ObservedPod
from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache
from stoker.cluster.events import EventPoster
from stoker.reconcile.context import Context
from stoker.reconcile.root_causes import with_root_causes
from stoker.reconcile.work_queue import WorkQueue

TAIL = "Traceback (most recent call last):\nRuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
LOG = """INFO 11-20 loading weights
WARNING /usr/lib/libfoo.so: No such file or directory
(EngineCore pid=55) ERROR 11-20 torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


def crashed(words: str = TAIL, *, restarts: int = 2, state: str = "waiting") -> ObservedPod:
    last = {"message": words} if state == "terminated" else {"last_message": words}
    engine = ObservedContainer(
        "engine",
        init=False,
        ready=False,
        started=False,
        restarts=restarts,
        state=state,
        exit_code=1,
        last_exit_code=1,
        **last,
    )  # type: ignore[arg-type]
    return ObservedPod("m-1", "Running", False, False, True, "10.0.0.1", "h", containers=(engine,))


async def told(answer: Answer, *pods: ObservedPod) -> tuple[list[ObservedContainer], list[str]]:
    """The engines as they are told on, and what was asked for."""
    async with serving(answer) as (server, client):
        context = Context(
            client, Cache(namespaces_known=True), OperatorSettings("s:1"), WorkQueue(), EventPoster(client, "x")
        )
        seen = [(await with_root_causes(context, "team", [pod]))[0].containers[0] for pod in pods]
        return seen, [path for _, path in server.asked]


def log(_: web.Request) -> web.Response:
    return web.Response(text=LOG)


async def test_the_line_above_is_found_in_the_log_of_the_run_before() -> None:
    (engine,), asked = await told(log, crashed())
    assert "CUDA out of memory" in engine.last_message
    assert asked == ["/api/v1/namespaces/team/pods/m-1/log?container=engine&previous=true&tailLines=200"]


async def test_it_is_read_once_for_each_end_and_of_this_run_while_it_has_just_ended() -> None:
    ends = crashed(), crashed(), crashed(restarts=3), crashed(state="terminated", restarts=3)
    _, asked = await told(log, *ends)
    assert [path.split("previous=")[1].split("&")[0] for path in asked] == ["true", "true", "false"]


async def test_words_that_say_it_themselves_are_left_alone() -> None:
    plain = crashed("error: invalid argument: --x"), crashed("Segmentation fault"), crashed(restarts=0)
    seen, asked = await told(log, *plain)
    assert [engine.last_message for engine in seen] == [pod.containers[0].last_message for pod in plain]
    assert asked == []


async def test_a_log_that_is_gone_or_says_nothing_changes_nothing() -> None:
    for answer in (status(404, "NotFound"), lambda _: web.Response(text="INFO all is well\n")):
        (engine,), _ = await told(answer, crashed())
        assert engine.last_message == TAIL
