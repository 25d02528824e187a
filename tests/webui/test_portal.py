"""The portal in Chromium, behind a real gateway, with a real OpenID provider and real usage; the API server and the engine are fakes.

STOKER_PICTURES=docs/images makes the pictures of docs/portal.md anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web
from gateway.loops import ThreadedServer
from gateway.pod import until
from ports import free_port
from webui.chrome import SERIOUS, Chrome, watched
from webui.open_webui import EMAIL, PASSWORD, OpenWebUI
from webui.portal_world import ADMIN_KEY, MODELS, IdentityProvider, PortalWorld, install_modules, oidc_of

from stoker.api.inspection import ModelStatus

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGES = {
    "models": "/",
    "keys": "/keys",
    "tools": "/portal/tools",
    "usage": "/portal/usage",
    "administration": "/portal/admin",
    "people": "/portal/admin/people",
    "all keys": "/portal/admin/keys",
    "change": "/portal/keys/laptop-1f",
}
PICTURES = {
    ("models", False, False): "portal-models.png",
    ("usage", False, False): "portal-usage.png",
    ("administration", False, True): "portal-administration.png",
    ("keys", True, True): "portal-keys-phone.png",
}


@pytest.fixture(scope="module")
def modules() -> Path:
    return install_modules()


@pytest.fixture(scope="module")
def portal(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortalWorld]:
    port = free_port()
    portal = PortalWorld(tmp_path_factory.mktemp("gw"), {"auth": {"oidc": oidc_of(port)}})
    try:
        provider = IdentityProvider(modules, tmp_path_factory.mktemp("idp"), f"{portal.url}/portal/callback", port)
        portal.provider = provider
        try:
            portal.start()
            add_keys(portal)
            yield portal
        finally:
            provider.stop()
    finally:
        portal.stop()


def add_keys(portal: PortalWorld) -> None:
    used = {"requests": 3211, "promptTokens": 4500000, "completionTokens": 812000}
    for name, title, owner, models in (
        ("laptop-1f", "opencode on my laptop", "carol@example.com", ["*"]),
        ("ci-2c", "CI of the search team", "carol@example.com", ["qwen3-coder"]),
        ("nb-3a", "notebook", "dave@example.com", ["*"]),
    ):
        portal.cluster.add_key(
            name, f"sk-{name}", owner=owner, role="admin" if "carol" in owner else "user", models=models
        )
        item = portal.cluster.keys[name]
        item["metadata"]["annotations"] = {"stoker.dev/title": title, "stoker.dev/key-prefix": "sk-stoker-4fG7…"}
        item["metadata"]["labels"] = {"stoker.dev/made-in-portal-of": "gateway"}
        item["status"] = {"lastUsedTime": "2026-03-02T09:12:00Z", "usage": used}
    portal.cluster.tell()


@pytest.fixture(scope="module")
def chrome(modules: Path, chromium: Path, playwright_installed: None) -> Iterator[Chrome]:
    chrome = Chrome(chromium, modules / "node_modules" / "axe-core" / "axe.min.js")
    yield chrome
    chrome.close()


def sign_in(page: Page, portal: PortalWorld, user: str, password: str | None = None) -> None:
    """By the identity provider, as people do."""
    page.goto(f"{portal.url}/portal/sign-in")
    page.click("text=Sign in with your account")
    page.fill("input[name=login]", user)
    page.fill("input[name=password]", password or f"{user}-password")
    page.click("button")


def make_key(page: Page, portal: PortalWorld, title: str) -> str:
    page.goto(f"{portal.url}/keys")
    page.fill("#title", title)
    page.click("text=Make the key")
    return page.inner_text("code.key")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_every_page_fits_and_axe_finds_nothing_serious(
    portal: PortalWorld, chrome: Chrome, phone: bool, dark: bool, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("STOKER_PICTURES", tmp_path))

    def look(page: Page) -> list[str]:
        problems: list[str] = []

        def check(name: str) -> None:
            problems.extend(chrome.violations(page))
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            if wider > 0:
                problems.append(f"critical: {name} is {wider} pixels wider than the screen")
            if picture := PICTURES.get((name, phone, dark)):
                page.screenshot(path=folder / picture)

        with watched(page, portal.url) as said:
            page.goto(portal.url)
            check("welcome")
            page.goto(f"{portal.url}/portal/sign-in")
            check("sign-in")
            sign_in(page, portal, "carol")
            page.wait_for_selector("text=Base URL")
            portal.server.remember()
            for name, path in PAGES.items():
                page.goto(portal.url + path)
                check(name)
            page.click("text=Save")
            make_key(page, portal, f"axe {phone} {dark}")
            check("a new key")
            page.click("[aria-label^='Revoke axe']")
            check("revoke")
            page.click("text=Revoke it")
            page.wait_for_selector("h1:has-text('Your keys')")
        assert not said, said
        page.goto(f"{portal.url}/portal/nothing")
        check("not found")
        return problems

    found = chrome.visit(look, phone=phone, dark=dark)
    assert [problem for problem in found if problem.startswith(SERIOUS)] == []


def test_a_key_made_on_the_page_opens_the_gateway_and_revoked_there_is_refused_within_five_seconds(
    portal: PortalWorld, chrome: Chrome
) -> None:
    def do(page: Page) -> tuple[str, float]:
        sign_in(page, portal, "dave")
        page.wait_for_selector("text=Base URL")
        key = make_key(page, portal, "a trial")
        until(lambda: portal.chat(key) == 200, "the key opens the gateway", within=5)
        until(lambda: portal.usage.get("/usage?user=dave@example.com&key=" + name_of(portal, "a trial")), "usage", 10)
        page.goto(f"{portal.url}/portal/usage?days=7")
        page.wait_for_selector("text=Key “a trial”")
        page.goto(f"{portal.url}/keys")
        page.click("[aria-label='Revoke a trial']")
        page.click("text=Revoke it")
        page.wait_for_selector("h1:has-text('Your keys')")
        return key, time.monotonic()

    key, revoked = chrome.visit(do)
    until(lambda: all(portal.chat(key) == 401 for _ in range(4)), "the refusal", within=5)
    print(f"revoked on the page, refused after {time.monotonic() - revoked:.2f} s")


def name_of(portal: PortalWorld, title: str) -> str:
    return next(
        name
        for name, item in portal.cluster.keys.items()
        if item["metadata"].get("annotations", {}).get("stoker.dev/title") == title
    )


def test_a_key_is_renamed_rotated_and_given_another_end_on_the_page(portal: PortalWorld, chrome: Chrome) -> None:
    def do(page: Page) -> tuple[str, str]:
        sign_in(page, portal, "dave")
        page.wait_for_selector("text=Base URL")
        first = make_key(page, portal, "first name")
        page.goto(f"{portal.url}/keys")
        page.click("[aria-label='Change first name']")
        page.fill("#title", "second name")
        page.select_option("#days", "30")
        page.click("text=Save")
        page.wait_for_selector("h2:has-text('second name')")
        page.click("[aria-label='Rotate second name']")
        return first, page.inner_text("code.key")

    first, second = chrome.visit(do, phone=True)
    spec = portal.cluster.keys[name_of(portal, "second name")]["spec"]
    assert "expiresAt" in spec
    until(lambda: portal.chat(second) == 200 and portal.chat(first) == 401, "only the new one opens", within=5)


@pytest.mark.parametrize(("user", "role"), [("carol", "admin"), ("dave", "user")])
def test_the_identity_provider_says_who_is_what(portal: PortalWorld, chrome: Chrome, user: str, role: str) -> None:
    def do(page: Page) -> tuple[str, bool, int]:
        sign_in(page, portal, user)
        page.wait_for_selector("text=Base URL")
        answer = page.request.get(f"{portal.url}/portal/admin")
        return page.inner_text(".person"), page.locator("text=Administration").count() > 0, answer.status

    said, sees, status = chrome.visit(do)
    assert said == f"{user}@example.com {role}"
    assert (sees, status) == ((True, 200) if role == "admin" else (False, 404))


@pytest.mark.parametrize("user", ["mallory", "eve"])
def test_who_has_no_role_or_another_one_is_refused_in_words(portal: PortalWorld, chrome: Chrome, user: str) -> None:
    def do(page: Page) -> tuple[str, list[str]]:
        sign_in(page, portal, user)
        return page.inner_text("[role=alert]"), [cookie["name"] for cookie in page.context.cookies(portal.url)]

    said, cookies = chrome.visit(do)
    assert f"{user}@example.com has no role here: ask an administrator" in said
    assert "stoker" not in cookies


def test_a_wrong_password_at_the_provider_opens_nothing(portal: PortalWorld, chrome: Chrome) -> None:
    def do(page: Page) -> str:
        sign_in(page, portal, "dave", "guessed")
        page.goto(f"{portal.url}/keys")
        return page.url

    assert chrome.visit(do) == f"{portal.url}/portal/sign-in"


def test_signing_out_leads_to_the_end_at_the_provider_which_then_asks_again(
    portal: PortalWorld, chrome: Chrome
) -> None:
    def do(page: Page) -> bool:
        sign_in(page, portal, "dave")
        page.click("text=Sign out")
        assert page.inner_text("h1") == "You are signed out here"
        assert page.request.get(f"{portal.url}/keys", max_redirects=0).status == 303
        page.click("text=Sign in again")
        page.click("text=Sign in with your account")
        page.wait_for_selector("text=Base URL")
        # Without a password: at the provider he still was signed in.
        page.click("text=Sign out")
        page.click("text=Sign out at the identity provider")
        page.click("button:has-text('Yes')")
        page.goto(f"{portal.url}/portal/sign-in")
        page.click("text=Sign in with your account")
        return page.locator("input[name=password]").count() == 1

    assert chrome.visit(do)


def test_another_role_counts_at_the_next_sign_in_and_a_session_ends_by_itself(
    portal: PortalWorld, chrome: Chrome
) -> None:
    def do(page: Page) -> tuple[str, float, str]:
        sign_in(page, portal, "dave")
        page.wait_for_selector("text=Base URL")
        cookie = next(cookie for cookie in page.context.cookies(portal.url) if cookie["name"] == "stoker")
        portal.provider.set_roles("dave", "visitor")
        page.goto(f"{portal.url}/keys")
        # As docs/portal.md says: who is signed in stays so.
        assert page.inner_text("h1") == "Your keys"
        page.context.clear_cookies(name="stoker")
        page.goto(f"{portal.url}/portal/oidc")
        return page.inner_text("[role=alert]"), cookie["expires"] - time.time(), str(cookie["sameSite"])

    try:
        said, seconds, same_site = chrome.visit(do)
    finally:
        portal.provider.set_roles("dave", "llm-user")
    assert "has no role here" in said
    assert 28800 - 60 < seconds <= 28800
    assert same_site == "Lax"


def test_names_are_never_code(portal: PortalWorld, chrome: Chrome) -> None:
    attack = "<img src=x onerror=\"document.title='hit'\">"
    script = "</code></pre><script>document.title='hit'</script>'\"{{7*7}}"
    before = portal.cluster.models
    whole = MODELS[0].deployment
    spec = whole.spec.model_copy(update={"aliases": [attack, "javascript:alert(1)"], "served_model_name": script})
    status = whole.status.model_copy(update={"model": ModelStatus(name=script)})
    # Past the rules of the API, which admit no such names.
    broken = whole.model_copy(update={"spec": spec, "status": status})
    portal.cluster.models = (*MODELS[1:], type(MODELS[0])(broken, stopped=False, engine_type="VLLM"))
    portal.cluster.add_key("evil", "sk-evil", owner=script, role="user", models=[attack])
    portal.cluster.keys["evil"]["metadata"]["annotations"] = {"stoker.dev/title": attack}
    portal.cluster.tell()

    def do(page: Page) -> list[str]:
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        sign_in(page, portal, "carol")
        page.wait_for_selector(f"text={script[:20]}")
        make_key(page, portal, attack)
        titles = []
        with watched(page, portal.url) as said:
            for path in (*PAGES.values(), "/portal/usage?user=" + httpx.QueryParams({"u": script})["u"]):
                page.goto(portal.url + path)
                titles.append(page.title())
                assert page.locator("img[src=x]").count() == 0
                assert page.locator("script:not([src])").count() == 0
                links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.protocol)")
                assert set(links) <= {"http:"}, path
        assert "49" not in page.inner_text("h1")
        return [*dialogs, *said, *(title for title in titles if "hit" in title)]

    try:
        assert chrome.visit(do) == []
    finally:
        portal.cluster.models = before
        del portal.cluster.keys["evil"]
        portal.cluster.tell()


class OtherSite(ThreadedServer):
    """Somebody else's pages: to a browser localhost and 127.0.0.1 are two sites."""

    html = ""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._show)
        return app

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(text=self.html, content_type="text/html")

    def visit(self, page: Page, html: str) -> None:
        self.html = html
        page.goto(f"http://localhost:{self.port}/")


@pytest.fixture
def other_site() -> Iterator[OtherSite]:
    site = OtherSite()
    site.start()
    yield site
    site.close()


def test_another_site_can_neither_send_forms_nor_frame_the_pages(
    portal: PortalWorld, chrome: Chrome, other_site: OtherSite
) -> None:
    keys = set(portal.cluster.keys)

    def do(page: Page) -> tuple[str, str, str]:
        sign_in(page, portal, "carol")
        page.wait_for_selector("text=Base URL")
        form = f'<form method="post" action="{portal.url}/portal/keys"><input name="title" value="x"><input name="days"></form>'
        other_site.visit(page, form + "<script>document.forms[0].submit()</script>")
        page.wait_for_url(f"{portal.url}/**")
        ended = page.url
        sign_out = f'<form method="post" action="{portal.url}/portal/sign-out"></form><script>document.forms[0].submit()</script>'
        other_site.visit(page, sign_out)
        page.wait_for_url(f"{portal.url}/**")
        page.goto(f"{portal.url}/keys")
        heading = page.inner_text("h1")
        other_site.visit(page, f'<iframe src="{portal.url}/keys"></iframe>')
        page.wait_for_timeout(500)
        return page.frames[1].inner_text("body"), ended, heading

    framed, ended, heading = chrome.visit(do)
    # What stands there is the browser's own word.
    assert "refused to connect" in framed
    assert ended.startswith(portal.url)
    assert heading == "Your keys", "he is still signed in"
    assert set(portal.cluster.keys) == keys


def test_a_planted_session_is_not_the_one_that_somebody_signs_in_to(portal: PortalWorld, chrome: Chrome) -> None:
    with httpx.Client(base_url=portal.url) as attacker:
        assert attacker.post("/portal/sign-in", data={"key": ADMIN_KEY}).status_code == 303
        planted = attacker.cookies["stoker"]

        def do(page: Page) -> tuple[str, str]:
            page.context.add_cookies([{"name": "stoker", "value": planted, "url": portal.url}])
            page.goto(f"{portal.url}/portal/oidc")
            page.fill("input[name=login]", "dave")
            page.fill("input[name=password]", "dave-password")
            page.click("button")
            page.wait_for_selector("text=Base URL")
            cookies = page.context.cookies(portal.url)
            return page.inner_text(".person"), next(c["value"] for c in cookies if c["name"] == "stoker")

        person, now = chrome.visit(do)
        assert person == "dave@example.com user"
        assert now != planted
        assert "dave" not in attacker.get("/").text


EVIL = "https://evil.example"


@pytest.mark.parametrize(
    "path",
    [f"/portal/sign-in?next={EVIL}", f"/portal/oidc?redirect_uri={EVIL}&next={EVIL}", f"/portal/callback?next={EVIL}", "//evil.example", "/keys?next=//evil.example"],
)  # fmt: skip
def test_no_address_leads_elsewhere(portal: PortalWorld, path: str) -> None:
    headers = {"X-Forwarded-Host": "evil.example", "Referer": EVIL}
    answer = httpx.get(portal.url + path, headers=headers)
    leads = answer.headers.get("location", "/")
    assert re.match(r"/(?!/)", leads) or leads.startswith(f"{portal.provider.issuer}/auth?"), leads
    if "oidc" in path:
        asked = httpx.URL(leads).params
        assert asked["redirect_uri"] == f"{portal.url}/portal/callback"
        assert asked["code_challenge_method"] == "S256"


def test_pages_work_without_scripts_and_copy_with_them(portal: PortalWorld, chrome: Chrome) -> None:
    def with_scripts(page: Page) -> str:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        sign_in(page, portal, "dave")
        page.wait_for_selector("text=Base URL")
        page.goto(f"{portal.url}/portal/tools")
        page.click("[aria-label='Copy opencode.json']")
        page.wait_for_selector("text=Copied")
        copied: str = page.evaluate("navigator.clipboard.readText()")
        assert page.request.get(f"{portal.url}/portal/tools/opencode.json").text() == copied
        return copied

    assert '"baseURL": "' + portal.url + '/v1"' in chrome.visit(with_scripts)

    def without(page: Page) -> str:
        plain = page.context.browser.new_context(java_script_enabled=False)  # type: ignore[union-attr]
        try:
            other = plain.new_page()
            other.goto(f"{portal.url}/portal/sign-in")
            other.fill("#key", ADMIN_KEY)
            other.click("text=Sign in with the key")
            return make_key(other, portal, "without scripts")
        finally:
            plain.close()

    assert chrome.visit(without).startswith("sk-stoker-")


def test_who_is_signed_in_to_the_web_chat_continues_from_there_until_he_is_put_out(
    ui: OpenWebUI, chrome: Chrome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    roles = [{"name": "team", "models": ["bge-m3"], "subjects": {"groups": ["lab"]}}]
    portal = PortalWorld(tmp_path_factory.mktemp("gw2"), {"roles": roles}, chat_address=ui.url)
    token = ui.add("frank@example.com", "user", "a-long-password")
    account = ui.request("GET", "/api/v1/auths/", token=token).json["id"]

    def chat_sign_in(page: Page, email: str, password: str) -> None:
        page.goto(ui.url, wait_until="domcontentloaded")
        page.fill("input[type=email]", email, timeout=60_000)
        page.fill("input[type=password]", password)
        page.keyboard.press("Enter")
        page.wait_for_selector("#chat-input", timeout=60_000)

    def person(page: Page, email: str) -> tuple[str, int]:
        page.goto(f"{portal.url}/portal/sign-in")
        for _ in range(5):
            if page.locator(f"text=Continue as {email}").count():
                break
            page.reload()
        page.click(f"text=Continue as {email}")
        page.wait_for_selector("text=Base URL")
        return page.inner_text(".person"), page.request.get(f"{portal.url}/portal/admin").status

    def do(page: Page) -> Any:
        chat_sign_in(page, "frank@example.com", "a-long-password")
        found = person(page, "frank@example.com")
        assert make_key(page, portal, "from the chat").startswith("sk-")
        gone = ui.request("DELETE", f"/api/v1/users/{account}", token=ui.sign_in())
        assert gone.status == 200, gone.body
        begun = time.monotonic()
        until(lambda: page.request.get(f"{portal.url}/keys", max_redirects=0).status == 303, "signed out", within=12)
        return found, time.monotonic() - begun

    def as_admin(page: Page) -> list[tuple[str, int]]:
        chat_sign_in(page, EMAIL, PASSWORD)
        alone = person(page, EMAIL)
        with ui.group("lab", ui.sign_in()):
            until(lambda: page.request.get(f"{portal.url}/keys", max_redirects=0).status == 303, "noticed", within=12)
            return [alone, person(page, EMAIL)]

    try:
        portal.start()
        (said, status), seconds = chrome.visit(do)
        assert (said, status) == ("frank@example.com user", 404)
        print(f"put out of the chat, signed out here after {seconds:.2f} s")
        assert portal.cluster.keys[name_of(portal, "from the chat")]["spec"]["owner"] == "frank@example.com"
        assert chrome.visit(as_admin) == [(f"{EMAIL} admin", 200), (f"{EMAIL} team", 404)]
    finally:
        portal.stop()
