"""A fake of Hugging Face's hub, as far as huggingface_hub asks it for a model; runs in the cluster, standard library only.

/models/ORG/REPO holds what a repository would. All of it is one commit, called main.
"""

import hashlib
import http.server
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

DATA = Path("/models")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = unquote(self.path.split("?", 1)[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.describe("/".join(parts[2:4]), parts[4:])
        elif len(parts) > 4 and parts[2] == "resolve":
            self.send_file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self.refuse(404, "EntryNotFound", "Entry not found")

    def describe(self, name, rest):
        files = sorted(path for path in (DATA / name).rglob("*") if path.is_file())
        names = [str(path.relative_to(DATA / name)) for path in files]
        if not files:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
            self.answer(entries)
        else:
            siblings = [{"rfilename": name} for name in names]
            about = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False, "tags": []}
            self.answer({**about, "siblings": siblings})

    def send_file(self, name, file):
        path = DATA / name / file
        if not path.is_file():
            missing = "EntryNotFound" if (DATA / name).is_dir() else "RepoNotFound"
            self.refuse(404, missing, f"{file} not found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.send_header("ETag", f'"{etag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as source:
                shutil.copyfileobj(source, self.wfile, 1 << 20)

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def etag(path):
    """By name and size: none of it changes."""
    return hashlib.sha1(f"{path}{path.stat().st_size}".encode()).hexdigest()


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", 8080), Hub).serve_forever()
