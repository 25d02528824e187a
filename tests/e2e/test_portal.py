"""The portal behind the real gateway: a person makes a key, uses it, and revokes it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import httpx
import pytest
from e2e.client import Gateway, Service
from e2e.kube import Kube, until

GATEWAY_PODS = "stoker.dev/api-gateway=gateway,app.kubernetes.io/component=gateway"
PODS = "stoker.dev/api-gateway=gateway,app.kubernetes.io/component=portal"


@pytest.fixture(scope="module")
def browser(kube: Kube, service: Service) -> Iterator[httpx.Client]:
    """Keeps cookies, and sees the pages once they are there."""
    gateway = ("patch", "apigateway", "gateway", "-n", service.namespace, "--type=merge", "-p")
    kube.kubectl(*gateway, '{"spec": {"portal": {"maxKeyDays": 30}}}')
    with httpx.Client(base_url=f"http://127.0.0.1:{service.gateway.port}", verify=False, trust_env=False) as client:
        until(lambda: client.get("/").status_code == 200, "the portal's page")
        yield client
    kube.kubectl(*gateway, '{"spec": {"portal": null}}')
    until(lambda: kube.get("deployments", service.namespace, "gateway-portal") is None, "no portal")


def field(page: httpx.Response, pattern: str) -> str:
    found = re.search(pattern, page.text)
    assert found, page.text
    return html.unescape(found.group(1))


def test_a_person_makes_a_key_uses_it_and_revokes_it(kube: Kube, service: Service, browser: httpx.Client) -> None:
    assert "smollm2" not in browser.get("/").text, "nothing is shown to strangers"
    assert browser.get("/keys").headers["location"] == "/portal/sign-in"
    assert browser.post("/portal/sign-in", data={"key": service.gateway.key}).status_code == 303
    until(lambda: "smollm2" in browser.get("/").text, "the models")
    csrf = field(browser.get("/keys"), r'name="csrf" value="([^"]+)"')
    page = browser.post("/portal/keys", data={"csrf": csrf, "title": "a test", "days": "30", "model": "smollm2"})
    assert page.status_code == 200, page.text
    key = field(page, r'class="key">([^<]+)<')
    name = field(page, r"/portal/keys/(a-test-[0-9a-f]+)/revoke")
    client = Gateway(service.gateway.port, key, "smollm2")
    until(lambda: all(client.chat().status == 200 for _ in range(4)), "the key opens the gateway")
    until(lambda: "Key “a test”" in browser.get("/portal/usage").text, "what was used, by the key's name")
    until(lambda: "running and 0 waiting now" in browser.get("/portal/admin").text, "the load of two moments")
    assert "/v1/chat/completions" in browser.get("/portal/tools/curl.sh").text
    secrets = kube.kubectl("get", "secrets", "-n", service.namespace, "-o", "name").split()
    assert f"secret/{name}" not in secrets, "the key is nowhere but with its owner"

    assert browser.post(f"/portal/keys/{name}/revoke", data={"csrf": csrf, "sure": "yes"}).status_code == 303
    until(lambda: all(client.request("GET", "/v1/models").status == 401 for _ in range(8)), "the refusal", within=5)


def test_the_gateway_serves_on_without_the_portal(kube: Kube, service: Service, browser: httpx.Client) -> None:
    pods = [pod["metadata"]["uid"] for pod in kube.pods(service.namespace, PODS)]
    kube.kubectl("delete", "pods", "-n", service.namespace, "-l", PODS, "--wait=false")
    assert service.gateway.chat().status == 200

    def replaced() -> bool:
        now = kube.pods(service.namespace, PODS)
        return bool(now) and not {pod["metadata"]["uid"] for pod in now} & set(pods)

    until(lambda: replaced() and browser.get("/").status_code == 200, "the portal is back")


CONNECT = "import socket, sys; socket.setdefaulttimeout(2); print(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"


def test_only_the_gateway_s_pods_may_reach_it(kube: Kube, service: Service, browser: httpx.Client) -> None:
    policy = kube.get("networkpolicies", service.namespace, "gateway-portal")
    assert policy is not None
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    account = f"system:serviceaccount:{service.namespace}:gateway-portal"
    for what in (["secrets"], ["configmaps", "gateway-clients"], ["pods"], ["modeldeployments"]):
        with pytest.raises(AssertionError, match="forbidden"):
            kube.kubectl("get", *what, "-n", service.namespace, "--as", account)
    kube.kubectl("get", "apikeys", "-n", service.namespace, "--as", account)


def test_it_reaches_the_gateway_s_load_but_not_what_drains_it(
    kube: Kube, service: Service, browser: httpx.Client
) -> None:
    address = kube.pods(service.namespace, GATEWAY_PODS)[0]["status"]["podIP"]
    inside = ("deployment/gateway-portal", "-n", service.namespace, "--", "python", "-c", CONNECT, address)
    assert kube.kubectl("exec", *inside, "9090") == "0\n"
    assert kube.kubectl("exec", *inside, "9091") != "0\n"
