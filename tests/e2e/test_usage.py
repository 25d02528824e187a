"""Usage, from a real engine's answers to /v1/usage and to the status of the key."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from e2e import objects
from e2e.client import Service, read_key
from e2e.kube import Kube, until
from openai import OpenAI

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def test_usage_tells_what_the_client_saw(kube: Kube, service: Service) -> None:
    namespace, gateway = service.namespace, service.gateway
    kube.apply(objects.key(namespace, "counted"))
    kube.wait_ready("apikey/counted", namespace=namespace)
    key = read_key(kube, namespace, "counted")
    client = OpenAI(base_url=gateway.url, api_key=key, max_retries=0, timeout=60)
    until(lambda: listed(client), "the key is let in")
    prompt = completion = 0
    for stream in (False, True):
        for words in range(3, 6):
            if not stream:
                usage = client.chat.completions.create(
                    model="smollm2", messages=HELLO, max_tokens=words, temperature=0
                ).usage
            else:
                usage = None
                for chunk in client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=words, temperature=0, stream=True, stream_options={"include_usage": True}):  # fmt: skip
                    usage = chunk.usage or usage
            assert usage is not None
            prompt, completion = prompt + usage.prompt_tokens, completion + usage.completion_tokens
    # One that does not ask sees no usage, and is counted like the others: the same words cost the same.
    quiet = list(
        client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=5, temperature=0, stream=True)
    )
    assert not any(chunk.usage for chunk in quiet)
    assert all(chunk.choices for chunk in quiet)
    prompt, completion = prompt + usage.prompt_tokens, completion + usage.completion_tokens

    def report() -> dict[str, Any]:
        request = urllib.request.Request(f"{gateway.url}/usage?by=model", headers={"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)["total"]
                return found
        except OSError:
            return {}

    total = until(lambda: (t := report()).get("requests") == 7 and t, "all requests are counted")
    assert (total["prompt_tokens"], total["completion_tokens"], total["estimated_requests"]) == (prompt, completion, 0)

    def status() -> dict[str, Any]:
        return (kube.get("apikeys", namespace, "counted") or {}).get("status") or {}

    used = until(lambda: (s := status()).get("usage") and s, "the key's status")
    assert used["usage"] == {"requests": 7, "promptTokens": prompt, "completionTokens": completion}
    assert used["lastUsedTime"]
    assert kube.condition("apigateways", namespace, "gateway", "UsageReady")["status"] == "True"


def listed(client: OpenAI) -> bool:
    try:
        return bool(list(client.models.list()))
    except Exception:
        return False
