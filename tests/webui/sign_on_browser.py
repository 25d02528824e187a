"""Signs on to Open WebUI by the test identity provider with Chromium, chats and signs out: sign_on_browser.py CHROMIUM URL USER ANSWER FOLDER"""

import sys
from pathlib import Path

from browser import ARGUMENTS, ask, close_news
from playwright.sync_api import Error, sync_playwright


def main(chromium: str, url: str, user: str, answer: str, folder: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        try:
            page.goto(url, wait_until="domcontentloaded", timeout=60_000)
            page.get_by_role("button", name="Continue with SSO").click(timeout=60_000)
            page.fill("input[name=login]", user, timeout=60_000)
            page.fill("input[name=password]", f"{user}-password")
            page.keyboard.press("Enter")
            page.wait_for_selector("#chat-input", timeout=60_000)
            close_news(page)
            ask(page, "Count for me", answer)
            page.get_by_label("Open User Profile Menu").first.click(timeout=10_000)
            page.get_by_text("Sign Out").click(timeout=10_000)
            page.wait_for_url("**/session/end**", timeout=30_000)
            print(f"signed out at: {page.url}")
        except Error:
            page.screenshot(path=Path(folder) / "failed.png")
            print(page.url, page.inner_text("body")[:1000])
            raise
        finally:
            browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
