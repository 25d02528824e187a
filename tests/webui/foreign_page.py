"""Signs in to Open WebUI with Chromium, and then visits a page of another site that acts for whom it finds: foreign_page.py CHROMIUM URL EMAIL PASSWORD FOLDER

Told at the end: with what status the web chat answered that page, which sends what pages may send to other sites, and one of its own.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from browser import ARGUMENTS, sign_in
from playwright.sync_api import Page, sync_playwright

ACT = """
async ([url, name, mode, type]) => {
  const body = JSON.stringify({name, profile_image_url: '/user.png'});
  const options = {method: 'POST', mode, credentials: 'include', headers: {'Content-Type': type}, body};
  await fetch(`${url}/api/v1/auths/update/profile`, options);
}
"""


class Foreign(BaseHTTPRequestHandler):
    """Of another site than 127.0.0.1, and on this machine, too, so that the browser does not keep it from asking."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>another site</title>")

    def log_message(self, *_: object) -> None:
        pass


def main(chromium: str, url: str, email: str, password: str, folder: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page()
        try:
            sign_in(page, url, email, password, Path(folder))
            own = act(page, url, "changed by himself", "same-origin", "application/json")
            page.goto(f"http://localhost:{server.server_port}/")
            print(json.dumps({"own": own, "foreign": act(page, url, "moved", "no-cors", "text/plain")}))
        finally:
            browser.close()


def act(page: Page, url: str, *how: str) -> int:
    with page.expect_response(lambda response: response.url.endswith("/update/profile")) as answer:
        page.evaluate(ACT, [url, *how])
    return answer.value.status


if __name__ == "__main__":
    main(*sys.argv[1:])
