"""Keys that are none, in places where keys do not belong, or for something else."""

from __future__ import annotations

import hashlib
import http.client

from gateway.pod import NAMESPACE, until
from gateway.ways.registry import CHAT, CHAT_PATH, GUEST, Fortress, refused, way
from gateway.wire import talk


@way("no key")
def no_key(fortress: Fortress) -> None:
    refused(fortress.ask(), 401)


@way("wrong key")
def wrong_key(fortress: Fortress) -> None:
    refused(fortress.ask("sk-wrong"), 401)


@way("empty bearer")
def empty_bearer(fortress: Fortress) -> None:
    for value in ("Bearer", "Bearer ", "Bearer    ", " "):
        refused(fortress.ask(headers={"authorization": value}), 401)


@way("wrong scheme")
def wrong_scheme(fortress: Fortress) -> None:
    for scheme in ("Basic", "Digest", "Token", "ApiKey", "Negotiate"):
        refused(fortress.ask(headers={"authorization": f"{scheme} sk-alice"}), 401)


@way("key without a scheme")
def key_without_scheme(fortress: Fortress) -> None:
    refused(fortress.ask(headers={"authorization": "sk-alice"}), 401)


@way("key in the query")
def key_in_query(fortress: Fortress) -> None:
    for name in ("key", "api_key", "api-key", "access_token", "token", "authorization"):
        refused(fortress.ask(target=f"{CHAT_PATH}?{name}=sk-alice"), 401)


@way("key in a cookie")
def key_in_cookie(fortress: Fortress) -> None:
    refused(fortress.ask(headers={"cookie": "token=sk-alice; authorization=Bearer sk-alice"}), 401)


@way("key in the body")
def key_in_body(fortress: Fortress) -> None:
    refused(fortress.ask(body={**CHAT, "api_key": "sk-alice", "authorization": "Bearer sk-alice"}), 401)


@way("key in the URL's user part")
def key_in_url(fortress: Fortress) -> None:
    answer = talk(fortress.port, b"GET http://sk-alice@gateway/v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n")
    refused(answer, 400, 401)


@way("key in another header")
def key_in_another_header(fortress: Fortress) -> None:
    for name in ("x-api-key", "api-key", "x-authorization", "proxy-authorization", "x-forwarded-authorization", "x-amzn-oidc-data"):  # fmt: skip
        refused(fortress.ask(headers={name: "Bearer sk-alice"}), 401)
        refused(fortress.ask(headers={name: "sk-alice"}), 401)


@way("good and bad Authorization, the good first")
def good_first(fortress: Fortress) -> None:
    _two_headers(fortress, b"sk-alice", b"sk-wrong")


@way("good and bad Authorization, the bad first")
def bad_first(fortress: Fortress) -> None:
    _two_headers(fortress, b"sk-wrong", b"sk-alice")


def _two_headers(fortress: Fortress, *keys: bytes) -> None:
    lines = b"".join(b"Authorization: Bearer " + key + b"\r\n" for key in keys)
    refused(talk(fortress.port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"), 401)


@way("keys in a list")
def keys_in_a_list(fortress: Fortress) -> None:
    refused(fortress.ask("sk-wrong, Bearer sk-alice"), 401)
    refused(fortress.ask("sk-alice, Bearer sk-wrong"), 401)


@way("the key's hash instead of the key")
def hash_of_the_key(fortress: Fortress) -> None:
    refused(fortress.ask(hashlib.sha256(b"sk-alice").hexdigest()), 401)


@way("a part of the key, or more than the key")
def part_of_the_key(fortress: Fortress) -> None:
    for key in ("sk-alic", "sk-alicee", "sk-*", "SK-ALICE", "sk-alice\t.", "sk-ålice"):
        refused(fortress.ask(key), 401)


@way("a key of enormous length")
def enormous_key(fortress: Fortress) -> None:
    for size in (17_000, 50_000):
        refused(fortress.ask("x" * size), 401)


@way("expired key")
def expired_key(fortress: Fortress) -> None:
    refused(fortress.ask("sk-old"), 401)


@way("suspended key")
def suspended_key(fortress: Fortress) -> None:
    """The operator takes the hash of a suspended or deleted ApiKey out of the Secret."""
    config = fortress.world.current
    config.key("leaver", "sk-leaver", models=["embed"])
    fortress.world.apply(config)
    assert fortress.world.pod.request("GET", "/v1/models", key="sk-leaver").status == 200
    config.keys = [key for key in config.keys if key["name"] != "leaver"]
    config.apply(fortress.world.kubernetes)
    until(lambda: fortress.ask("sk-leaver").status == 401, "the key is out", within=5)


@way("a key that goes while its connection stays")
def key_gone_on_an_open_connection(fortress: Fortress) -> None:
    config = fortress.world.current
    config.key("stayer", "sk-stayer", models=["embed"])
    fortress.world.apply(config)
    connection = http.client.HTTPConnection("127.0.0.1", fortress.port, timeout=10)

    def status() -> int:
        connection.request("GET", "/v1/models", headers={"authorization": "Bearer sk-stayer"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    try:
        assert status() == 200
        assert connection.sock
        port = connection.sock.getsockname()[1]
        config.keys = [key for key in config.keys if key["name"] != "stayer"]
        config.apply(fortress.world.kubernetes)
        until(lambda: status() == 401, "the key is out", within=5)
        assert connection.sock.getsockname()[1] == port
    finally:
        connection.close()


@way("another gateway's key")
def key_of_another_gateway(fortress: Fortress) -> None:
    keys = [{"name": "x", "sha256": hashlib.sha256(b"sk-other").hexdigest(), "models": ["*"]}]
    for name in ("other-keys-0", "gateway-keys-1"):
        fortress.world.kubernetes.put_secret(NAMESPACE, name, keys_json={"version": 1, "keys": keys})
    fortress.world.apply(fortress.world.current)
    refused(fortress.ask("sk-other"), 401)


@way("a foreign namespace's model")
def model_of_a_foreign_namespace(fortress: Fortress) -> None:
    for model in ("team-b/secret", "secret", "team-a/qwen", "team-b/qwen", "answer", "policy"):
        refused(fortress.ask("sk-alice", body={**CHAT, "model": model}), 404)


@way("a model outside of the key's patterns")
def model_outside_of_patterns(fortress: Fortress) -> None:
    for model in ("qwen", "gpt-4o", "QWEN", "qwen ", " qwen", "qwen\n", "ｑwen", "qwen\u200b", "embed/../qwen", "embed,qwen", "embed\u0000qwen"):  # fmt: skip
        answer = fortress.ask(GUEST, body={**CHAT, "model": model})
        refused(answer, 404)
        assert answer.error["code"] == "model_not_found"


@way("a pattern instead of a name")
def pattern_as_name(fortress: Fortress) -> None:
    for model in ("*", "q*", "?wen", ".*", "qwe[n]"):
        refused(fortress.ask("sk-alice", body={**CHAT, "model": model}), 404)


@way("a model by its address")
def model_by_path(fortress: Fortress) -> None:
    for target in ("/v1/models/qwen", "/v1/models/gpt-4o", "/v1/models/qwen/../embed", "/v1/models/%71wen"):
        refused(fortress.ask(GUEST, target=target, method="GET", body=b""), 404)
