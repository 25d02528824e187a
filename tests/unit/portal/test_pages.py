"""The pages as browsers see them; the API server is a fake."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from unit.portal.conftest import ADMIN_KEY, BOB_KEY, CONFIG, Browser, FakeApiServer, sha256

from stoker.portal.config import PortalConfig
from stoker.portal.directory import Directory, digest_of
from stoker.portal.sessions import Sessions


async def test_nobody_learns_anything_without_signing_in(browser: Browser) -> None:
    home = await browser.get("/")
    assert home.status == 200
    assert "qwen3" not in browser.text
    assert "ai.example.com" not in browser.text
    for path in ("/keys", "/portal/admin"):
        answer = await browser.get(path)
        assert (answer.status, answer.headers["Location"]) == (303, "/portal/sign-in")


async def test_every_answer_is_protected_and_private(browser: Browser) -> None:
    for path in ("/", "/portal/sign-in", "/portal/nothing", "/portal/static/portal.css"):
        headers = (await browser.get(path)).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == ("max-age=3600" if "static" in path else "no-store")


async def test_pages_hold_nothing_that_their_policy_forbids(browser: Browser) -> None:
    await browser.sign_in(ADMIN_KEY)
    for path in (
        "/",
        "/keys",
        "/portal/tools",
        "/portal/usage",
        "/portal/admin",
        "/portal/admin/people",
        "/portal/admin/keys",
    ):
        await browser.get(path)
        assert "style=" not in browser.text
        assert "<script>" not in browser.text
        assert "onclick" not in browser.text
        # Addresses are words to copy; nothing is loaded from elsewhere, and no link leads there.
        assert not re.search(r'(?:src|href|action)="(?![/#])', browser.text)


async def test_a_key_signs_in_and_shows_what_it_opens(browser: Browser) -> None:
    await browser.sign_in(BOB_KEY)
    await browser.get("/")
    assert "llama" in browser.text
    assert "qwen3" not in browser.text, "his role may use it, but his key may not"
    assert "secret-model" not in browser.text


async def test_a_wrong_key_is_refused_and_signs_nobody_in(browser: Browser) -> None:
    answer = await browser.post("/portal/sign-in", csrf="", key="sk-wrong")
    assert answer.status == 403
    assert "does not know this key" in browser.text
    assert browser.cookies() == {}


@pytest.mark.parametrize("change", [{"suspend": True}, {"expiresAt": "2020-01-01T00:00:00Z"}, {"sha256": "0" * 64}])
async def test_a_key_that_is_stopped_ends_its_session(
    browser: Browser, api: FakeApiServer, change: dict[str, Any]
) -> None:
    await browser.sign_in(BOB_KEY)
    api.keys["bob"]["spec"] |= change
    assert (await browser.get("/keys")).status == 303


async def test_whoever_only_holds_a_key_cannot_make_others_of_it(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(BOB_KEY)
    assert "cannot make others" in browser.text
    answer = await browser.post("/portal/keys", title="more", days="")
    assert answer.status == 400
    for action in ("rotate", "revoke"):
        assert (await browser.post(f"/portal/keys/bob/{action}", sure="yes")).status == 400
    assert api.keys.keys() == {"gateway-admin", "bob"}


async def test_a_new_key_is_shown_once_and_only_its_hash_is_kept(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    answer = await browser.post("/portal/keys", title="opencode on my laptop", days="30", model=["qwen3", "llama"])
    assert answer.status == 200
    key = browser.new_key
    (made,) = [item for name, item in api.keys.items() if name.startswith("opencode-on-my-laptop-")]
    assert made["spec"]["sha256"] == sha256(key)
    assert made["spec"]["models"] == ["llama", "qwen3"]
    assert made["spec"]["role"] == "admin"
    assert "expiresAt" in made["spec"]
    assert key not in str(made)
    await browser.get("/keys")
    assert "opencode on my laptop" in browser.text
    assert key not in browser.text


async def test_a_rotated_key_is_another_one_under_the_same_name(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    await browser.post("/portal/keys", title="ci", days="")
    first = browser.new_key
    (name,) = [name for name in api.keys if name.startswith("ci-")]
    await browser.post(f"/portal/keys/{name}/rotate")
    assert browser.new_key != first
    assert api.keys[name]["spec"]["sha256"] == sha256(browser.new_key)


async def test_a_key_gets_another_name_and_another_end(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    await browser.post("/portal/keys", title="ci", days="30")
    (name,) = [name for name in api.keys if name.startswith("ci-")]
    before = dict(api.keys[name]["spec"])
    await browser.get(f"/portal/keys/{name}")
    assert (await browser.post(f"/portal/keys/{name}/change", title="ci of team b", days="keep")).status == 303
    assert api.keys[name]["spec"] == before
    await browser.get("/keys")
    assert "ci of team b" in browser.text
    await browser.post(f"/portal/keys/{name}/change", title="ci", days="365")
    assert api.keys[name]["spec"]["expiresAt"] > before["expiresAt"]
    await browser.get("/keys")
    await browser.post(f"/portal/keys/{name}/change", title="ci", days="")
    assert "expiresAt" not in api.keys[name]["spec"]
    assert api.keys[name]["spec"]["sha256"] == before["sha256"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"title": "", "days": "keep"}, "Give the key a name"),
        ({"title": "a", "days": "61"}, "60 days at most"),
        ({"title": "a", "days": ""}, "60 days at most"),
        ({"title": "a", "days": "0"}, "a day at least"),
        ({"title": "a", "days": "99999999999"}, "one of the times"),
    ],
)
async def test_a_change_is_bounded_like_a_new_key(
    browser: Browser, api: FakeApiServer, directory: Directory, fields: dict[str, str], says: str
) -> None:
    directory.config = PortalConfig.model_validate({**CONFIG, "maxKeyDays": 60})
    await browser.sign_in(ADMIN_KEY)
    await browser.post("/portal/keys", title="ci", days="30")
    (name,) = [name for name in api.keys if name.startswith("ci-")]
    before = json.dumps(api.keys[name])
    assert (await browser.post(f"/portal/keys/{name}/change", **fields)).status == 400
    assert says in browser.text
    assert json.dumps(api.keys[name]) == before


async def test_a_key_that_was_written_elsewhere_is_not_changed_here(
    browser: Browser, api: FakeApiServer, settings: Any
) -> None:
    api.add("from-git", owner="dave@example.com", role="user", sha256="5" * 64)
    sign_in_as(browser, settings, "dave@example.com")
    await browser.get("/keys")
    assert (await browser.post("/portal/keys/from-git/change", title="mine", days="")).status == 400
    assert "was not made here" in browser.text


async def test_who_has_another_role_now_gets_it_for_a_key_that_he_rotates(
    browser: Browser, api: FakeApiServer, settings: Any
) -> None:
    sign_in_as(browser, settings, "dave@example.com", role="admin")
    await browser.get("/keys")
    await browser.post("/portal/keys", title="ci", days="")
    (name,) = [name for name in api.keys if name.startswith("ci-")]
    sign_in_as(browser, settings, "dave@example.com", role="user")
    await browser.get("/keys")
    assert "role admin, which is not yours now" in browser.text
    await browser.post(f"/portal/keys/{name}/rotate")
    assert api.keys[name]["spec"]["role"] == "user"


async def test_a_key_is_revoked_only_after_it_was_asked_again(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    await browser.post("/portal/keys", title="ci", days="")
    (name,) = [name for name in api.keys if name.startswith("ci-")]
    await browser.post(f"/portal/keys/{name}/revoke")
    assert name in api.keys
    assert "cannot be undone" in browser.text
    answer = await browser.post(f"/portal/keys/{name}/revoke", sure="yes")
    assert answer.status == 303
    assert name not in api.keys


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"title": " ", "days": ""}, "Give the key a name"),
        ({"title": "x" * 65, "days": ""}, "Give the key a name"),
        ({"title": "a\u202eb", "days": ""}, "Give the key a name"),
        ({"title": "a", "days": "-1"}, "one of the times"),
        ({"title": "a", "days": "0"}, "at least"),
        ({"title": "a", "days": "", "model": "nothing"}, "no model nothing"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    browser: Browser, api: FakeApiServer, fields: dict[str, str], says: str
) -> None:
    await browser.sign_in(ADMIN_KEY)
    assert (await browser.post("/portal/keys", **fields)).status == 400
    assert says in browser.text
    assert len(api.keys) == 2


async def test_nobody_has_more_keys_than_allowed(browser: Browser, directory: Directory) -> None:
    await browser.sign_in(ADMIN_KEY)
    answers = [(await browser.post("/portal/keys", title=f"key {n}", days="")).status for n in range(4)]
    assert answers == [200, 200, 200, 400]
    assert "revoke one" in browser.text


async def test_keys_last_no_longer_than_the_gateway_says(browser: Browser, directory: Directory) -> None:
    directory.config = PortalConfig.model_validate({**CONFIG, "maxKeyDays": 60})
    await browser.sign_in(ADMIN_KEY)
    assert ">60 days<" in browser.text
    assert ">90 days<" not in browser.text
    assert "until I revoke it" not in browser.text
    for days in ("", "61"):
        assert (await browser.post("/portal/keys", title="a", days=days)).status == 400
    assert (await browser.post("/portal/keys", title="a", days="60")).status == 200


async def test_a_form_without_the_session_s_token_does_nothing(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    for csrf in ("", "guessed"):
        assert (await browser.post("/portal/keys", csrf=csrf, title="a", days="")).status == 400
    good = browser.csrf
    await browser.get("/keys")
    good = browser.csrf
    other = {"Sec-Fetch-Site": "cross-site"}
    assert (await browser.post("/portal/keys", csrf=good, headers=other, title="a", days="")).status == 400
    assert len(api.keys) == 2


async def test_another_site_cannot_sign_somebody_in(browser: Browser) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        answer = await browser.post("/portal/sign-in", csrf="", headers=headers, key=ADMIN_KEY)
        assert answer.status == 400
    assert browser.cookies() == {}


async def test_names_are_text_whatever_they_hold(browser: Browser, api: FakeApiServer) -> None:
    attack = "<script>alert(1)</script>"
    api.add("evil", owner=attack, role="user", models=[attack], sha256="1" * 64)
    await browser.sign_in(ADMIN_KEY)
    answer = await browser._client.get("/portal/admin/keys")
    raw = await answer.text()
    assert attack not in raw
    assert "&lt;script&gt;alert(1)" in raw


async def test_only_administrators_see_everybody_s_keys(browsers: Any, api: FakeApiServer, settings: Any) -> None:
    admin, bob = browsers(), browsers()
    await admin.sign_in(ADMIN_KEY)
    await admin.get("/portal/admin/keys")
    assert "bob@example.com" in admin.text
    await bob.sign_in(BOB_KEY)
    for path in ("/portal/admin", "/portal/admin/people", "/portal/admin/keys"):
        assert (await bob.get(path)).status == 404
    await bob.get("/keys")
    assert "gateway-admin" not in bob.text


async def test_somebody_else_s_key_looks_like_none(browser: Browser, api: FakeApiServer, settings: Any) -> None:
    api.add("carols", owner="carol@example.com", role="user", sha256="2" * 64)
    api.add("elsewhere", gateway="other", owner="dave@example.com", sha256="3" * 64)
    sign_in_as(browser, settings, "dave@example.com")
    await browser.get("/keys")
    for name in ("carols", "elsewhere", "no-such", "..%2Fsecrets%2Fx"):
        assert (await browser.get(f"/portal/keys/{name}")).status == 400
        await browser.get("/keys")
        assert (await browser.post(f"/portal/keys/{name}/change", csrf="c", title="x", days="keep")).status == 400
        assert (await browser.post(f"/portal/keys/{name}/rotate", csrf="c")).status == 400
        assert (await browser.post(f"/portal/keys/{name}/revoke", csrf="c", sure="yes")).status == 400
        assert "You have no key" in browser.text
    assert {"carols", "elsewhere"} <= api.keys.keys()


async def test_a_key_is_its_owner_s_however_his_address_is_written(
    browsers: Any, api: FakeApiServer, settings: Any
) -> None:
    api.add("carols", owner="Carol@Example.com", role="user", sha256=sha256("sk-stoker-carol"))
    by_key, carol, admin = browsers(), browsers(), browsers()
    await by_key.sign_in("sk-stoker-carol")
    assert by_key.claims()["sub"] == "carol@example.com"
    sign_in_as(carol, settings, "carol@example.com")
    await carol.get("/keys")
    assert "carols" in carol.text
    assert (await carol.post("/portal/keys/carols/revoke", sure="yes")).status == 303
    assert "carols" not in api.keys
    api.add("carols", owner="Carol@Example.com", role="user", sha256="2" * 64)
    api.add("another", owner="carol@example.com", role="user", sha256="3" * 64)
    await admin.sign_in(ADMIN_KEY)
    await admin.get("/portal/admin/people")
    assert admin.text.count("carol@example.com</a>") == 1
    assert "Carol@Example.com" not in admin.text


async def test_the_gateway_s_own_key_cannot_be_revoked_here(browser: Browser, api: FakeApiServer) -> None:
    await browser.sign_in(ADMIN_KEY)
    assert (await browser.post("/portal/keys/gateway-admin/revoke", sure="yes")).status == 400
    assert "gateway-admin" in api.keys


async def test_a_role_that_is_gone_signs_its_people_out(browser: Browser, directory: Directory, settings: Any) -> None:
    sign_in_as(browser, settings, "dave@example.com", role="user")
    assert (await browser.get("/keys")).status == 200
    directory.config = PortalConfig.model_validate({**CONFIG, "roles": []})
    assert (await browser.get("/keys")).status == 303


async def test_cookies_are_for_the_server_alone_and_over_https_for_this_host_alone(browser: Browser) -> None:
    plain = await browser.post("/portal/sign-in", csrf="", key=ADMIN_KEY)
    assert "HttpOnly" in plain.headers["Set-Cookie"]
    assert "SameSite=Lax" in plain.headers["Set-Cookie"]
    safe = await browser.post("/portal/sign-in", csrf="", headers={"X-Forwarded-Proto": "https"}, key=ADMIN_KEY)
    assert safe.headers["Set-Cookie"].startswith("__Host-stoker=")
    assert "Secure" in safe.headers["Set-Cookie"]


@pytest.mark.parametrize("change", ["role", "signature", "use", "exp"])
async def test_a_cookie_that_somebody_has_changed_is_worth_nothing(
    browser: Browser, settings: Any, change: str
) -> None:
    secret = "t" * 64 if change == "signature" else settings.session_secret
    claims = {
        "use": "session",
        "sub": "eve",
        "role": "admin",
        "how": "oidc",
        "csrf": "c",
        "digest": "",
        "exp": int(time.time()) + 60,
    }
    if change == "use":
        claims["use"] = "sign-in"
    if change == "exp":
        claims["exp"] = int(time.time()) - 60
    if change == "role":
        claims["role"] = "root"
    browser._client.session.cookie_jar.update_cookies({"stoker": Sessions(secret)._sign(claims)})
    assert (await browser.get("/keys")).status == 303


async def test_signing_out_ends_the_session(browser: Browser) -> None:
    await browser.sign_in(ADMIN_KEY)
    assert (await browser.post("/portal/sign-out")).status == 303
    assert (await browser.get("/keys")).status == 303


async def test_a_cluster_that_does_not_answer_is_said(
    browser: Browser, api: FakeApiServer, directory: Directory
) -> None:
    await browser.sign_in(ADMIN_KEY)
    api.failing = True
    answer = await browser.post("/portal/keys", title="a", days="")
    assert answer.status == 503
    assert "does not answer" in browser.text


def test_the_digest_is_the_gateway_s() -> None:
    assert digest_of(" key\n") == sha256("key")


def sign_in_as(browser: Browser, settings: Any, user: str, role: str = "user") -> None:
    """As the identity provider would have done."""
    exp = int(time.time()) + 600
    claims = {"use": "session", "sub": user, "role": role, "how": "oidc", "csrf": "c", "digest": "", "exp": exp}
    browser._client.session.cookie_jar.update_cookies({"stoker": Sessions(settings.session_secret)._sign(claims)})
