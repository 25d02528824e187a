"""Signs in to Open WebUI with Chromium, asks, and waits for the answer: browser.py CHROMIUM URL EMAIL PASSWORD QUESTION ANSWER FOLDER [COUNT [MODEL]]

ANSWER is awaited on the page; empty: any, until it has forty words or grows no more. Screenshots go into FOLDER; COUNT chats, each a new one,
with MODEL where it is given. What answers and questions try to run in the page is told at the end.
"""

import sys
import time
from pathlib import Path

from playwright.sync_api import Error, Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
ANSWER = "#response-content-container"


def main(
    chromium: str,
    url: str,
    email: str,
    password: str,
    question: str,
    answer: str,
    folder: str,
    count: str = "1",
    model: str = "",
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        try:
            sign_in(page, url, email, password, Path(folder))
            for number in range(int(count)):
                if number or model:
                    start = f"{url}/?models={model}" if model else url
                    page.goto(start, wait_until="domcontentloaded", timeout=60_000)
                ask(page, question, answer)
            page.wait_for_timeout(500)
            page.screenshot(path=Path(folder) / "chat.png")
            print(f"ran in the page: {page.evaluate('window.ran || null')}")
        except Error:
            page.screenshot(path=Path(folder) / "failed.png")
            print(page.url, page.inner_text("body")[:1000])
            raise
        finally:
            browser.close()


def sign_in(page: Page, url: str, email: str, password: str, folder: Path) -> None:
    page.goto(url, wait_until="domcontentloaded", timeout=60_000)
    page.fill("input[type=email]", email, timeout=60_000)
    page.fill("input[type=password]", password)
    page.screenshot(path=folder / "sign-in.png")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chat-input", timeout=60_000)
    close_news(page)


def ask(page: Page, question: str, answer: str) -> None:
    page.click("#chat-input", timeout=60_000)
    page.keyboard.type(question)
    page.keyboard.press("Enter")
    states: set[str] = set()
    last, changed = "", time.monotonic()
    for _ in range(1200):
        text = written(page)
        states.add(text)
        if text != last:
            last, changed = text, time.monotonic()
        grown = len(text.split()) > 40 or (len(text.split()) > 3 and time.monotonic() - changed > 3)
        # A refusal stands on the page, but is no answer.
        if (answer and (answer in text or answer in page.inner_text("body"))) or (not answer and grown):
            break
        page.wait_for_timeout(50)
    else:
        raise Error(f"no answer: {text!r}")
    print(f"seen while it was written: {len(states)} states")
    # What was awaited may have come after the last look.
    print(f"answer: {written(page)}")


def written(page: Page) -> str:
    return " ".join(page.locator(ANSWER).all_inner_texts()).strip()


def close_news(page: Page) -> None:
    """What is new in this version, shown to admins once."""
    try:
        page.get_by_role("button", name="Okay, Let's Go!").click(timeout=4_000)
    except Error:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
