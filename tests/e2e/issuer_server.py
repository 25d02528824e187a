"""An identity provider in the cluster that is asked about tokens (RFC 7662), over HTTPS."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KNOWN = {"opaque-alice": {"sub": "alice", "email": "alice@example.com", "groups": ["staff"]}}
CLIENT = "Basic " + base64.b64encode(b"front:client secret").decode()


class Issuer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        said = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        known = KNOWN.get(said.get("token", [""])[0]) if self.headers["authorization"] == CLIENT else None
        answer = {"active": True, "exp": time.time() + 600, **known} if known else {"active": False}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


pair = Path("/tmp/server.pem")
pair.write_text(os.environ["CERTIFICATE"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pair)
server = ThreadingHTTPServer(("", 8080), Issuer)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
