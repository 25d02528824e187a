"""What keys have used, asked of a gateway's usage pod."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Self

import httpx

from stoker.api.api_key import KeyUsage, UsedTokens

USAGE_PORT = 8090
TIMEOUT_SECONDS = 5.0


class UsageReader:
    """Connections to usage pods."""

    def __init__(self) -> None:
        # Pods are asked directly: a proxy from the environment could not reach them.
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def read_keys(self, pod_ip: str, token: str) -> dict[str, KeyUsage]:
        """By the key's name; nothing when the pod does not answer, for that says nothing."""
        host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
        try:
            answer = await self._http.get(
                f"http://{host}:{USAGE_PORT}/keys", headers={"Authorization": f"Bearer {token}"}
            )
            if answer.status_code != 200:
                return {}
            return {name: _key_usage(said) for name, said in answer.json()["keys"].items()}
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _key_usage(said: dict[str, object]) -> KeyUsage:
    last = str(said.get("lastUsedTime") or "")
    # Kubernetes keeps whole seconds.
    return KeyUsage(
        UsedTokens.model_validate(said), datetime.fromisoformat(last).replace(microsecond=0) if last else None
    )
