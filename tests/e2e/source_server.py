"""A source of weights that misbehaves on request; runs in the cluster, standard library only.

/NAME/FILE is FILE of the well-behaved server in UPSTREAM, treated as the mode of NAME says. /control/NAME/MODE changes a mode,
/log tells what was asked for, /sha256/FILE computes a checksum.
"""

import hashlib
import http.server
import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.request

UPSTREAM, MODEL = os.environ["UPSTREAM"], os.environ["MODEL"]
MODES = json.loads(os.environ["MODES"])
TOKEN = "letmein"
CUT_AFTER = 20_000_000
LOG = []
LOCK = threading.Lock()


class Source(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, head, *rest = self.path.split("?", 1)[0].split("/")
        if head == "log":
            self.answer(200, json.dumps(LOG).encode())
        elif head == "control":
            MODES[rest[0]] = rest[1]
            self.answer(200, b"ok")
        elif head == "sha256":
            with urllib.request.urlopen(f"{UPSTREAM}/{rest[0]}") as upstream:
                digest = hashlib.sha256()
                while piece := upstream.read(1 << 20):
                    digest.update(piece)
            self.answer(200, digest.hexdigest().encode())
        else:
            self.serve(head, rest[0])

    def serve(self, name, file):
        with LOCK:
            mode = MODES.get(name, "ok")
            wanted = self.headers.get("Range", "")
            # What begins at 0 with a range is a look at the header, no download.
            earlier = sum(1 for line in LOG if line["name"] == name and not line["range"].startswith("bytes=0-"))
            LOG.append({"name": name, "mode": mode, "range": wanted})
        if mode == "missing" or (mode == "split" and "-00001-of-" not in file):
            self.answer(404, b"there is no such file")
        elif mode == "private" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b"who are you?")
        elif mode == "gated":
            self.answer(403, b"accept the terms first", {"X-Error-Code": "GatedRepo"})
        elif mode == "spoiled":
            # It begins as a model does, of a version that there is not.
            self.answer(200, b"GGUF" + bytes([99, 0, 0, 0]) + bytes(1 << 20))
        elif mode == "text":
            self.answer(200, b"<html>This is a login page, not a model.</html>\n" * 1000)
        elif mode == "split":
            self.relay(MODEL, cut=False, slow=False)
        else:
            self.relay(
                file, cut=mode == "cut" and earlier == 0 and not wanted.startswith("bytes=0-"), slow=mode == "slow"
            )

    def relay(self, file, cut, slow):
        request = urllib.request.Request(f"{UPSTREAM}/{file}")
        for header in ("Range", "If-Range"):
            if header in self.headers:
                request.add_header(header, self.headers[header])
        try:
            upstream = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            self.answer(error.code, b"")
            return
        with upstream:
            self.send_response(upstream.status)
            for header in ("Content-Length", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified"):
                if header in upstream.headers:
                    self.send_header(header, upstream.headers[header])
            self.end_headers()
            if cut:
                self.wfile.write(upstream.read(CUT_AFTER))
                self.close_connection = True
            elif slow:
                while piece := upstream.read(1 << 20):
                    self.wfile.write(piece)
                    time.sleep(0.1)
            else:
                shutil.copyfileobj(upstream, self.wfile, 1 << 20)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", 8080), Source).serve_forever()
