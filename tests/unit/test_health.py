"""The operator's HTTP port, over HTTP."""

from __future__ import annotations

import aiohttp

from stoker.health import HealthServer


async def test_the_decisions_of_a_model_can_be_asked_for_and_of_others_it_is_said_why_not() -> None:
    told = {"namespace": "team", "name": "smol", "desired": 2}
    server = HealthServer(
        healthy=lambda: "",
        ready=lambda: "",
        collect=lambda: None,
        explain_scaling=lambda namespace, name: told if (namespace, name) == ("team", "smol") else None,
    )
    await server.start(0)
    try:
        assert server._runner is not None
        port = next(address[1] for address in server._runner.addresses if ":" not in address[0])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.get("/debug/scaling/team/smol") as answer:
                assert (answer.status, await answer.json()) == (200, told)
            async with http.get("/debug/scaling/team/other") as answer:
                assert answer.status == 404
                assert "does not scale itself" in await answer.text()
    finally:
        await server.stop()
