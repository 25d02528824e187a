"""Web pages behind the gateway's address, through real Envoy to a fake site; what is theirs, and what never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway.conftest import World, first_config
from gateway.fake_engine import FakeEngine
from gateway.pod import NAMESPACE, until

SITE = {"service": "gateway-portal", "paths": ["/", "/keys"], "prefix": "/portal/"}


@pytest.fixture
def site(world: World) -> Iterator[FakeEngine]:
    """Answers everything, and remembers it."""
    fake = FakeEngine("site")
    config = first_config()
    config.sites = [SITE]
    world.kubernetes.put_endpoints(NAMESPACE, "gateway-portal", [fake.port])
    config.apply(world.kubernetes)
    until(lambda: world.pod.request("GET", "/", key=None).status == 200, "the site is there")
    fake.seen.clear()
    yield fake
    world.kubernetes.put_endpoints(NAMESPACE, "gateway-portal", [])
    fake.close()


@pytest.mark.parametrize("path", ["/", "/keys", "/keys?x=1", "/portal/", "/portal/keys/a-1/revoke"])
def test_pages_are_asked_without_a_key_and_see_none(world: World, site: FakeEngine, path: str) -> None:
    headers = {"cookie": "stoker=1", "x-gw-cluster": "team-a/qwen", "x-api-key": "sk-alice"}
    assert world.pod.request("GET", path, key="sk-alice", headers=headers).status == 200
    (seen,) = site.seen
    assert seen.target == path
    assert seen.headers["cookie"] == "stoker=1"
    assert seen.headers["x-forwarded-proto"] == "http"
    assert not {"authorization", "x-api-key", "x-gw-cluster"} & seen.headers.keys()


@pytest.mark.parametrize(
    "path",
    ["/keysx", "/keys/", "/portal", "//", "//portal/", "/Portal/", "/x/../portal/", "/v1/../portal/x", "/%70ortal/"],
)
def test_what_only_looks_like_a_page_needs_a_key(world: World, site: FakeEngine, path: str) -> None:
    assert world.pod.request("GET", path, key=None).status == 401
    assert not site.seen


def test_the_api_stays_closed_and_a_visitor_s_cookies_stay_with_the_pages(world: World, site: FakeEngine) -> None:
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [world.engines[0].port])
    assert world.pod.chat("qwen", key=None).status == 401
    chat = until(lambda: (found := world.pod.request("POST", "/v1/chat/completions", {"model": "qwen"}, headers={"cookie": "stoker=1"})).status == 200 and found, "the engine is there")  # fmt: skip
    assert chat.status == 200
    assert "cookie" not in world.engines[0].seen[-1].headers
    assert not site.seen


@pytest.mark.parametrize(
    "wrong",
    [
        {**SITE, "prefix": "/v1/"},
        {**SITE, "prefix": "/"},
        {**SITE, "prefix": "/api/"},
        {**SITE, "paths": ["/v1/models"]},
        {**SITE, "service": "UPPER"},
        {"service": "gateway-portal"},
    ],
)
def test_a_site_that_would_open_the_api_is_left_out(world: World, wrong: dict[str, object]) -> None:
    config = first_config()
    config.sites = [wrong]
    config.key("marker", "sk-marker").apply(world.kubernetes)
    until(
        lambda: world.pod.request("GET", "/v1/models", key="sk-marker").status == 200, "the configuration is in force"
    )
    assert world.pod.request("GET", "/v1/models", key=None).status == 401
