"""A fake API server: list and watch of Secrets and EndpointSlices, which is all a gateway asks for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from gateway.loops import ThreadedServer

Object = dict[str, Any]
ADDRESSES = {"embed": "127.0.0.2", "coder": "127.0.0.3", "cold": "127.0.0.4"}


TOLD_SECONDS = 20.0


class FakeKubernetes(ThreadedServer):
    """Objects by plural, namespace and name, and a history that watches read from."""

    def __init__(self) -> None:
        super().__init__()
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: list[tuple[int, str, str, str, Object]] = []
        self._changed = asyncio.Condition()
        self._version = 1
        self._written: dict[object, int] = {}
        """The newest version that each open watch has been told of."""
        self.forbidden: set[tuple[str, str]] = set()
        """(plural, namespace) that may not be read."""
        self.start()

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/{plural}", self._list_or_watch)
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/{plural}", self._list_or_watch)
        return app

    def kubeconfig(self, path: Path) -> Path:
        """How a client finds this server."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "users": [{"name": "fake", "user": {}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                }
            )
        )
        return path

    def put_secret(self, namespace: str, name: str, **files: object) -> None:
        self.put_files(
            namespace,
            name,
            {field.replace("_", "."): json.dumps(content).encode() for field, content in files.items()},
        )

    def put_files(self, namespace: str, name: str, files: Mapping[str, bytes]) -> None:
        """A Secret as it is."""
        data = {field: base64.b64encode(content).decode() for field, content in files.items()}
        self.call(self._put("secrets", {"metadata": {"namespace": namespace, "name": name}, "data": data}))

    def put_endpoints(
        self, namespace: str, service: str, ports: Iterable[int], *, terminating: Iterable[int] = (), starting: Iterable[int] = ()
    ) -> None:  # fmt: skip
        """One slice a port: on loopback, replicas of a model differ by port, and models by address."""
        wanted = {
            **{port: {"ready": True, "serving": True, "terminating": False} for port in ports},
            **{port: {"ready": False, "serving": True, "terminating": True} for port in terminating},
            **{port: {"ready": False, "serving": False, "terminating": False} for port in starting},
        }
        names = {f"{service}-{port}" for port in wanted}
        labels = {"kubernetes.io/service-name": service, "app.kubernetes.io/managed-by": "stoker"}
        for port, conditions in wanted.items():
            item = {
                "metadata": {"namespace": namespace, "name": f"{service}-{port}", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [ADDRESSES.get(service, "127.0.0.1")], "conditions": conditions}],
            }
            self.call(self._put("endpointslices", item))
        for plural, where, name in list(self._objects):
            if (
                (plural, where) == ("endpointslices", namespace)
                and name.startswith(f"{service}-")
                and name not in names
            ):
                self.call(self._delete(plural, namespace, name))

    def delete_secret(self, namespace: str, name: str) -> None:
        self.call(self._delete("secrets", namespace, name))

    async def _put(self, plural: str, obj: Object) -> None:
        metadata = obj["metadata"]
        place = (plural, metadata["namespace"], metadata["name"])
        kind = "MODIFIED" if place in self._objects else "ADDED"
        # Whoever lists meanwhile may hear of it twice, but not never.
        self._objects[place] = obj
        await self._record(kind, *place, obj)

    async def _delete(self, plural: str, namespace: str, name: str) -> None:
        obj = self._objects.pop((plural, namespace, name))
        await self._record("DELETED", plural, namespace, name, obj)

    async def _record(self, kind: str, plural: str, namespace: str, name: str, obj: Object) -> None:
        async with self._changed:
            self._version += 1
            obj["metadata"]["resourceVersion"] = str(self._version)
            self._history.append((self._version, kind, plural, namespace, json.loads(json.dumps(obj))))
            self._changed.notify_all()
            version = self._version
            # Whoever calls knows: what it puts next is heard of later than this.
            told = self._changed.wait_for(lambda: all(written >= version for written in self._written.values()))
            await asyncio.wait_for(told, TOLD_SECONDS)

    async def _list_or_watch(self, request: web.Request) -> web.StreamResponse:
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        if (plural, namespace) in self.forbidden:
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)

        def wanted(obj: Object) -> bool:
            return not name or obj["metadata"]["name"] == name

        if "watch" not in request.query:
            items = [obj for place, obj in self._objects.items() if place[:2] == (plural, namespace) and wanted(obj)]
            return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        seen, watch = int(request.query["resourceVersion"]), object()
        try:
            while True:
                async with self._changed:
                    self._written[watch] = seen
                    self._changed.notify_all()
                    while self._version <= seen:
                        await self._changed.wait()
                    news = [entry for entry in self._history if entry[0] > seen]
                    seen = self._version
                for _, kind, of, where, obj in news:
                    if (of, where) == (plural, namespace) and wanted(obj):
                        await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        finally:
            self._written.pop(watch, None)
            async with self._changed:
                self._changed.notify_all()
