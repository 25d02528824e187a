"""Usage, tools and administration; the usage process and the API server are fakes."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web
from unit.portal.conftest import ADMIN_KEY, BOB_KEY, CONFIG, Browser, FakeApiServer, FakeUsage
from unit.portal.test_pages import sign_in_as

from stoker.cluster.load import GatewayAnswer, GatewayReading
from stoker.portal.config import PortalConfig
from stoker.portal.directory import Directory
from stoker.portal.rendering import LOAD
from stoker.portal.usage import UsageReader, UsageUnavailable

TODAY = datetime.now(UTC).date()


async def test_a_person_sees_what_he_used_by_day_model_and_way(
    browser: Browser, settings: Any, usage: FakeUsage, api: FakeApiServer
) -> None:
    api.add("laptop-1", owner="dave@example.com", role="user", sha256="4" * 64)
    api.keys["laptop-1"]["metadata"]["annotations"] = {"stoker.dev/title": "my laptop"}
    usage.add("day", TODAY.isoformat(), 1200, 800)
    usage.add("model", "qwen3", 1200, 800)
    for key in ("gateway-webui", "jwt:dave@example.com", "laptop-1"):
        usage.add("key", key, 400, 200)
    sign_in_as(browser, settings, "dave@example.com")
    assert (await browser.get("/portal/usage")).status == 200
    for words in ("Web chat", "Token of the identity provider", "Key “my laptop”", "1,200", "qwen3", "<svg", "2k"):
        assert words in browser.text
    assert {asked["user"] for asked in usage.asked} == {"dave@example.com"}
    assert {asked["from"] for asked in usage.asked} == {(TODAY - timedelta(days=29)).isoformat()}


async def test_who_came_with_a_key_sees_what_was_done_with_that_key(browser: Browser, usage: FakeUsage) -> None:
    await browser.sign_in(BOB_KEY)
    await browser.get("/portal/usage?days=7&user=alice@example.com")
    assert {(asked.get("key"), asked.get("user")) for asked in usage.asked} == {("bob", None)}
    assert {asked["from"] for asked in usage.asked} == {(TODAY - timedelta(days=6)).isoformat()}


async def test_an_admin_sees_anybody_s_and_nobody_else_does(browsers: Any, settings: Any, usage: FakeUsage) -> None:
    admin, dave = browsers(), browsers()
    await admin.sign_in(ADMIN_KEY)
    await admin.get("/portal/usage?user=eve@example.com")
    assert "Usage of eve@example.com" in admin.text
    assert {asked["user"] for asked in usage.asked} == {"eve@example.com"}
    usage.asked.clear()
    sign_in_as(dave, settings, "dave@example.com")
    await dave.get("/portal/usage?user=eve@example.com")
    assert {asked["user"] for asked in usage.asked} == {"dave@example.com"}


@pytest.mark.parametrize("days", ["9999999", "-1", "x", "\u0663\u0660"])
async def test_only_the_spans_of_the_page_are_asked_for(browser: Browser, usage: FakeUsage, days: str) -> None:
    await browser.sign_in(BOB_KEY)
    assert (await browser.get("/portal/usage", params={"days": days})).status == 200
    assert {asked["from"] for asked in usage.asked} == {(TODAY - timedelta(days=29)).isoformat()}


async def test_without_numbers_the_page_says_so_and_stays(browser: Browser, usage: FakeUsage) -> None:
    await browser.sign_in(ADMIN_KEY)
    await browser.get("/portal/usage")
    assert "Nothing yet" in browser.text
    usage.status = 503
    for path in ("/portal/usage", "/portal/admin/people"):
        assert (await browser.get(path)).status == 200
        assert "cannot be read at the moment" in browser.text
    assert "bob@example.com" in browser.text, "who has keys is known without"


async def test_a_gateway_without_usage_says_so() -> None:
    with pytest.raises(UsageUnavailable, match="keeps no usage"):
        await UsageReader("", "t").read("day", TODAY, TODAY, {})


@pytest.mark.parametrize("answer", [{}, {"data": [{"day": "x"}]}, {"data": None}, []])
async def test_an_answer_that_cannot_be_read_is_none(answer: Any) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    with pytest.raises(UsageUnavailable):
        await UsageReader("http://usage", "t", transport).read("day", TODAY, TODAY, {})


async def test_tools_get_the_models_that_somebody_may_use_and_no_key(browser: Browser, settings: Any) -> None:
    sign_in_as(browser, settings, "dave@example.com")
    await browser.get("/portal/tools")
    assert '"baseURL": "http://ai.example.com/v1"' in browser.text
    assert "qwen3" in browser.text
    assert "secret-model" not in browser.text
    assert "sk-stoker" not in browser.text
    for name in ("opencode.json", "continue.yaml", "curl.sh", "python.py", "langchain.py"):
        saved = await browser.get(f"/portal/tools/{name}")
        assert saved.status == 200
        assert saved.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert saved.headers["X-Content-Type-Options"] == "nosniff"
        assert "ai.example.com" in browser.text
        assert "secret-model" not in browser.text
    assert (await browser.get("/portal/tools/..%2Fmain.py")).status == 404


async def test_tools_are_for_those_who_are_signed_in(browser: Browser) -> None:
    for path in ("/portal/tools", "/portal/tools/curl.sh", "/portal/usage", "/portal/admin/people", "/portal/keys/x"):
        answer = await browser.get(path)
        assert (answer.status, answer.headers["Location"]) == (303, "/portal/sign-in")


async def test_people_come_by_what_they_used_and_those_who_only_have_keys_last(
    browser: Browser, usage: FakeUsage
) -> None:
    usage.add("user", "eve@example.com", 10, 0)
    usage.add("user", "dave@example.com", 1000, 234)
    await browser.sign_in(ADMIN_KEY)
    await browser.get("/portal/admin/people")
    places = [browser.text.index(f">{name}<") for name in ("dave@example.com", "eve@example.com", "bob@example.com")]
    assert places == sorted(places)
    assert "1,234" in browser.text
    assert "/portal/usage?user=dave%40example.com" in browser.text


async def test_admins_see_why_a_model_is_not_up_and_its_last_hour(
    browser: Browser, site: web.Application, directory: Directory
) -> None:
    failed = {"name": "llama", "state": "Failed", "reason": "GatedRepository", "message": "Give it a token."}
    directory.config = PortalConfig.model_validate({**CONFIG, "models": [CONFIG["models"][0], failed]})
    for at in (time.time() - 30, time.time()):
        answers = [GatewayAnswer({"team-a/qwen3": GatewayReading(1, 3, 0, 0, {})})]
        site[LOAD].note(directory.models(), answers, at)
    await browser.sign_in(ADMIN_KEY)
    await browser.get("/portal/admin")
    assert "Give it a token." in browser.text
    assert "Requests of qwen3: 3 running and 1 waiting now; at most 3 and 1 over the last hour" in browser.text
    assert "Replicas of qwen3: 1 ready now" in browser.text


async def test_the_first_page_says_which_models_are_up_and_why_not(
    browser: Browser, settings: Any, directory: Directory
) -> None:
    states = [
        {"name": "up", "state": "Ready", "reason": "Serving"},
        {"name": "asleep", "state": "Asleep"},
        {"name": "off", "state": "Stopped"},
        {"name": "coming", "state": "Starting", "reason": "Downloading"},
        {"name": "broken", "state": "Failed", "reason": "EngineNotFound", "message": "There is no engine vllm."},
    ]
    roles = [{"name": "user", "limits": {"requestsPerMinute": 1200}}]
    told = {**CONFIG, "models": states, "roles": roles, "userLimits": {"tokensPerMinute": 50000}}
    directory.config = PortalConfig.model_validate(told)
    sign_in_as(browser, settings, "dave@example.com")
    await browser.get("/")
    for words in ("Wakes with the first request", "Stopped by an administrator", "Downloading", "An administrator has to look after it (EngineNotFound)"):  # fmt: skip
        assert words in browser.text
    assert "There is no engine vllm." not in browser.text, "what is to be done is for those who can do it"
    assert "<strong>1,200</strong> requests a minute" in browser.text
    assert "<strong>50,000</strong> tokens a minute" in browser.text
    await browser.post("/portal/sign-out")
    await browser.sign_in(ADMIN_KEY)
    await browser.get("/")
    assert "There is no engine vllm." in browser.text


async def test_a_route_is_a_name_that_people_may_ask_for(
    browser: Browser, settings: Any, directory: Directory, api: FakeApiServer
) -> None:
    routes = [
        {"name": "assistant", "state": "Ready", "behind": ["qwen3", "llama"], "fallbacks": ["big at api.example.com"]},
        {"name": "secret-model", "state": "Ready", "behind": ["secret-model"], "fallbacks": ["qwen3"]},
    ]
    models = [{**CONFIG["models"][0], "aliases": ["assistant", "gpt-4o"]}, *CONFIG["models"][1:]]
    roles = [{"name": "user", "models": ["assistant"]}, {"name": "staff", "models": ["secret*", "gpt-4o"]}]
    directory.config = PortalConfig.model_validate({**CONFIG, "models": models, "routes": routes, "roles": roles})
    sign_in_as(browser, settings, "dave@example.com")
    await browser.get("/")
    assert text_of(browser).count("assistant") == 1
    assert "Answered by qwen3 or llama; when they cannot, by big at api.example.com." in text_of(browser)
    await browser.get("/portal/tools/opencode.json")
    assert list(json.loads(browser.text)["provider"]["gateway"]["models"]) == ["assistant"]
    sign_in_as(browser, settings, "rosa@example.com", role="staff")
    await browser.get("/keys")
    assert re.findall(r'name="model" value="([^"]+)"', browser.text) == ["secret-model", "qwen3"]
    assert (await browser.post("/portal/keys", title="x", days="30", model="secret-model")).status == 200
    await browser.get("/")
    assert "Also as gpt-4o" in text_of(browser), "without the alias that the route has taken"
    assert "Answered by secret-model; when it cannot, by qwen3." in text_of(browser)


async def test_admins_see_routes_beside_the_models(browser: Browser, directory: Directory) -> None:
    route = {"name": "assistant", "state": "Failed", "message": "Give it a token.", "behind": ["llama"]}
    directory.config = PortalConfig.model_validate({**CONFIG, "routes": [route]})
    await browser.sign_in(ADMIN_KEY)
    await browser.get("/portal/admin")
    assert "Routes" in text_of(browser)
    assert "assistant Failed Answered by llama. Give it a token." in text_of(browser)


def text_of(browser: Browser) -> str:
    """What people read of the main part: no tags, single blanks."""
    main = browser.text.partition("<main")[2].partition(">")[2]
    words = re.sub(r"<[^>]*>", "", re.sub(r"</(h[1-6]|p|li|div|span)>", " ", main))
    return " ".join(words.split())
