"""The web chat in a cluster: its own pod, the real small model behind it, a person with a browser in front."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from e2e import objects
from e2e.client import NodePort
from e2e.conftest import ROOT
from e2e.kube import Kube, until

pytestmark = [pytest.mark.slow, pytest.mark.webui]


@dataclass
class WebChat:
    namespace: str
    url: str
    email: str
    password: str

    def sign_in(self) -> httpx.Response:
        return httpx.post(f"{self.url}/api/v1/auths/signin", json={"email": self.email, "password": self.password}, timeout=60)  # fmt: skip


@pytest.fixture(scope="module")
def chat(kube: Kube, make_namespace: Callable[[str], str], next_port: Callable[[], NodePort]) -> Iterator[WebChat]:
    build = [ROOT / "hack" / "images" / "build", "open-webui", "--load", kube.cluster.name]
    subprocess.run(build, check=True)
    namespace, api, ui = make_namespace("e2e-web-ui"), next_port(), next_port()
    url = f"http://127.0.0.1:{ui.host_port}"
    web_ui = {
        "url": url,
        "storage": {"size": "1Gi"},
        "expose": {"type": "NodePort", "nodePort": ui.node_port},
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}},
    }
    kube.apply(
        objects.engine(namespace),
        objects.model(namespace, "smollm2"),
        objects.gateway(namespace, api.node_port, webUI=web_ui),
    )
    kube.wait_ready("apigateway/gateway", "modeldeployment/smollm2", namespace=namespace)
    kube.kubectl("wait", "--for=condition=WebUIReady", "apigateway/gateway", "-n", namespace, "--timeout=240s")
    secret = kube.get("secrets", namespace, "gateway-webui-admin")
    assert secret
    email, password = (base64.b64decode(secret["data"][field]).decode() for field in ("email", "password"))
    yield WebChat(namespace, url, email, password)
    kube.delete("apigateways", namespace, "gateway")


def test_a_person_signs_in_and_reads_the_models_answer_while_it_is_written(chat: WebChat, tmp_path: Path) -> None:
    pip = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*pip, "--requirement", ROOT / "requirements-webui.txt"], check=True)
    browser = [
        sys.executable,
        ROOT / "tests" / "webui" / "browser.py",
        "/usr/bin/chromium",
        chat.url,
        chat.email,
        chat.password,
    ]
    done = subprocess.run(
        [*browser, "Tell me about the sea.", "", tmp_path], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    states = int(done.stdout.partition("seen while it was written: ")[2].split()[0])
    assert states > 2, done.stdout


def test_its_pod_is_restricted_and_its_status_says_where_it_is(kube: Kube, chat: WebChat) -> None:
    gateway = kube.get("apigateways", chat.namespace, "gateway")
    assert gateway
    assert gateway["status"]["webUIUrl"] == chat.url
    assert kube.condition("apigateways", chat.namespace, "gateway", "WebUISecure")["status"] == "True"
    (pod,) = kube.pods(chat.namespace, "app.kubernetes.io/component=web-ui")
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_accounts_survive_a_new_pod(kube: Kube, chat: WebChat) -> None:
    assert chat.sign_in().status_code == 200
    kube.kubectl("delete", "pod", "gateway-webui-0", "-n", chat.namespace, "--timeout=180s")
    kube.kubectl("wait", "--for=condition=Ready", "pod/gateway-webui-0", "-n", chat.namespace, "--timeout=180s")

    def signed_in() -> bool:
        try:
            return chat.sign_in().status_code == 200
        except httpx.TransportError:
            return False

    until(signed_in, "the same login works", every=1)


FORGED = """
import json, urllib.request
request = urllib.request.Request("http://gateway-webui/api/v1/auths/signin", b'{"email": "", "password": ""}', {
    "Content-Type": "application/json", "X-Forwarded-Email": "mallory@example.com", "X-Forwarded-Role": "admin"})
print("role:", json.load(urllib.request.urlopen(request, timeout=5))["role"])
"""


def test_who_forges_the_proxys_headers_in_another_pod_does_not_reach_the_chat(kube: Kube, chat: WebChat) -> None:
    """Whoever reaches it is whom he says; so only the proxy's pods do."""
    proxy = {"app": "oauth2-proxy"}
    trusted = {"from": [{"podSelector": {"matchLabels": proxy}}], "role": "X-Forwarded-Role"}
    kube.patch("apigateways", chat.namespace, "gateway", {"spec": {"webUI": {"trustedHeader": trusted}}})
    kube.wait_current("apigateways", chat.namespace, "gateway", within=240)
    kube.kubectl("rollout", "status", "statefulset/gateway-webui", "-n", chat.namespace, "--timeout=240s")
    phase, said = kube.run_python(chat.namespace, "oauth2-proxy", FORGED, labels=proxy)
    assert (phase, said.strip()) == ("Succeeded", "role: admin")
    phase, said = kube.run_python(chat.namespace, "mallory", FORGED)
    assert phase == "Failed"
    assert "timed out" in said
