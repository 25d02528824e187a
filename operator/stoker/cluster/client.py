"""The API server over HTTP: get, list, create, server-side apply, delete and watch, in plain dicts.

    async with await KubeClient.connect() as client:
        deployment = await client.get(DEPLOYMENTS, "team-a", "qwen")
        async for event in client.watch(SECRETS, "team-a", name="gateway-routes"):
            ...

Without the typed models of the Kubernetes library, which take longer to fill than the request takes. Imports are kept light,
for the gateway's policy process uses this, too.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from stoker.api.names import FIELD_MANAGER
from stoker.cluster.connection import Connection, read_connection
from stoker.cluster.errors import ApiError, ApiUnavailable
from stoker.cluster.resource_types import PODS, Object, ResourceType
from stoker.cluster.watching import WatchEvent, watch_objects

__all__ = ["ApiError", "ApiUnavailable", "KubeClient", "Object", "ResourceType", "WatchEvent"]

REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
PAGE_SIZE = 500
MAX_ATTEMPTS = 4

JSON_TYPE = "application/json"
METADATA_TYPE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST_TYPE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
APPLY_TYPE = "application/apply-patch+yaml"
MERGE_PATCH_TYPE = "application/merge-patch+json"

RequestObserver = Callable[[str, str, int], None]
"""Called with verb, plural and HTTP status after every request; the operator counts its writes with it."""


class KubeClient:
    """A pool of connections to one API server."""

    def __init__(self, connection: Connection, *, observer: RequestObserver | None = None) -> None:
        self._connection = connection
        self._observer = observer
        context = connection.ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=64, ssl=context if context is not None else True, keepalive_timeout=60
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS),
            headers={"User-Agent": FIELD_MANAGER},
        )

    @classmethod
    async def connect(cls, *, observer: RequestObserver | None = None, context: str | None = None) -> Self:
        """A client for the pod's own service account, or for KUBECONFIG and a context of it."""
        return cls(await read_connection(context), observer=observer)

    @property
    def connection(self) -> Connection:
        """What this client talks to."""
        return self._connection

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(
        self, resource: ResourceType, namespace: str | None, name: str, *, only_metadata: bool = False
    ) -> Object | None:
        """The object, or None where there is none; ``only_metadata`` spares both sides a megabyte of a Secret's content."""
        accept = METADATA_TYPE if only_metadata else JSON_TYPE
        try:
            return await self._request("get", resource, resource.path(namespace, name), accept=accept)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def read_log(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        """The end of a container's log, of its last run or the one before."""
        query = {"container": container, "previous": str(previous).lower(), "tailLines": str(lines)}
        path = PODS.path(namespace, pod, "log")
        headers = {"Accept": "text/plain, */*"}
        answer = await self._send("get", PODS, path, method="GET", data=None, headers=headers, query=query)
        return answer.decode("utf-8", "replace")

    async def list(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[list[Object], str]:
        """All objects, and the resourceVersion a watch continues from."""
        items: list[Object] = []
        query = {"limit": str(PAGE_SIZE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        while True:
            page = await self._request("list", resource, resource.path(namespace), query=query)
            for item in page.get("items") or []:
                # Items of a list do not say what they are.
                item.setdefault("kind", resource.kind)
                item.setdefault("apiVersion", resource.api_version)
                items.append(item)
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"].get("resourceVersion", "")
            query["continue"] = token

    async def list_versions(
        self, resource: ResourceType, namespace: str | None = None, *, label_selector: str = ""
    ) -> tuple[dict[tuple[str, str], int], int]:
        """resourceVersion of every object by (namespace, name), without its content; and that of the list."""
        query = {"labelSelector": label_selector} if label_selector else {}
        page = await self._request("list", resource, resource.path(namespace), query=query, accept=METADATA_LIST_TYPE)
        found = (item["metadata"] for item in page.get("items") or ())
        versions = {(data.get("namespace", ""), data["name"]): int(data["resourceVersion"]) for data in found}
        return versions, int(page["metadata"]["resourceVersion"])

    async def is_served(self, resource: ResourceType) -> bool:
        """Whether the API server knows this kind now."""
        path = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
        try:
            answer = await self._request("discover", resource, path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(known["name"] == resource.plural for known in answer.get("resources") or ())

    async def create(self, resource: ResourceType, obj: Object) -> Object:
        """Make the object; ApiError with status 409 where one of this name exists."""
        namespace = obj["metadata"].get("namespace")
        return await self._request(
            "create", resource, resource.path(namespace), method="POST", body=obj, query={"fieldManager": FIELD_MANAGER}
        )

    async def apply(self, resource: ResourceType, obj: Object) -> Object:
        """Server-side apply: our fields become what ``obj`` says, everybody else's stay."""
        metadata = obj["metadata"]
        return await self._request(
            "apply",
            resource,
            resource.path(metadata.get("namespace"), metadata["name"]),
            method="PATCH",
            body=obj,
            content_type=APPLY_TYPE,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
        )

    async def replace(self, resource: ResourceType, obj: Object) -> Object:
        """Write the whole object; ApiError with status 409 when its resourceVersion is not the present one."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._request(
            "update", resource, path, method="PUT", body=obj, query={"fieldManager": FIELD_MANAGER}
        )

    async def write_status(self, resource: ResourceType, read: Object, status: Object) -> Object:
        """Put our whole status in the place of the old one; ApiError with status 404 when the object is another one now.

        A replace: a patch costs the API server twice as much, and a merge would leave things behind.
        """
        metadata = read["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"], "status")
        version = metadata["resourceVersion"]
        while True:
            name = {"namespace": metadata["namespace"], "name": metadata["name"], "resourceVersion": version}
            body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": name, "status": status}
            try:
                return await self._request(
                    "update_status", resource, path, method="PUT", body=body, query={"fieldManager": FIELD_MANAGER}
                )
            except ApiError as error:
                if error.status != 409:
                    raise
            # Changed since it was read, mostly in its spec: for that another pass comes; what was seen now is still to be told.
            now = await self.get(resource, metadata["namespace"], metadata["name"])
            if now is None or now["metadata"]["uid"] != metadata["uid"]:
                raise ApiError(404, "NotFound", f"{resource.kind} {metadata['name']} is gone")
            version = now["metadata"]["resourceVersion"]

    async def merge(self, resource: ResourceType, namespace: str, name: str, patch: Object) -> Object:
        """JSON merge patch; ApiError with status 409 where a uid or resourceVersion in it is not the present one."""
        path = resource.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request(
            "patch", resource, path, method="PATCH", body=patch, content_type=MERGE_PATCH_TYPE, query=query
        )

    async def delete(self, resource: ResourceType, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete the object, and only this one when ``uid`` is given; it is fine if it is gone already."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("delete", resource, resource.path(namespace, name), method="DELETE", body=body)
        except ApiError as error:
            # 409: a new object of the same name has taken its place.
            if error.status not in (404, 409):
                raise

    def watch(
        self, resource: ResourceType, namespace: str | None = None, *, name: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Endless: LISTED with all objects first and after each gap, then every single change (see WatchEvent)."""
        return watch_objects(self, resource, namespace, name=name, label_selector=label_selector)

    async def _request(
        self,
        verb: str,
        resource: ResourceType,
        path: str,
        *,
        method: str = "GET",
        body: Any = None,
        content_type: str = JSON_TYPE,
        accept: str = JSON_TYPE,
        query: dict[str, str] | None = None,
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": content_type, "Accept": accept}
        answer = await self._send(verb, resource, path, method=method, data=data, headers=headers, query=query)
        parsed: Object = orjson.loads(answer)
        return parsed

    async def _send(
        self,
        verb: str,
        resource: ResourceType,
        path: str,
        *,
        method: str,
        data: bytes | None,
        headers: dict[str, str],
        query: dict[str, str] | None,
    ) -> bytes:
        """One request; again after a renewed token (401), when told to wait (429), or when an idle connection was cut.

        All our verbs may be sent twice: what they say is the end, not the step; create answers 409 the second time.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._session.request(
                    method,
                    self._connection.server + path,
                    params=query,
                    data=data,
                    headers={**headers, **self.credentials(fresh=attempt > 1)},
                ) as response:
                    text = await response.read()
                    if self._observer is not None:
                        self._observer(verb, resource.plural, response.status)
                    if response.status < 300:
                        return text
                    error = ApiError.from_answer(response.status, text, path)
                    wait = _retry_after(response.headers.get("Retry-After"))
            except (aiohttp.ClientError, TimeoutError, OSError) as failure:
                if self._observer is not None:
                    self._observer(verb, resource.plural, 0)
                if not isinstance(failure, aiohttp.ServerDisconnectedError) or attempt >= 2:
                    raise ApiUnavailable(f"{method} {path}: {failure or type(failure).__name__}") from failure
                continue
            if attempt >= MAX_ATTEMPTS or not (error.status == 429 or (error.status == 401 and attempt == 1)):
                raise error
            if error.status == 429:
                await asyncio.sleep(wait * (1 + random.random() / 2))  # noqa: S311

    def credentials(self, *, fresh: bool = False) -> dict[str, str]:
        """The header to log in with at this moment."""
        token = self._connection.bearer_token(fresh=fresh)
        return {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections, for the watch."""
        return self._session


def _retry_after(header: str | None) -> float:
    try:
        return min(float(header or 1), 10.0)
    except ValueError:
        return 1.0
