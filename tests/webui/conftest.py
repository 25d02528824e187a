"""Open WebUI, the gateway and a browser, all real and on loopback; the API server and the engine are fakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "hack" / "images"), str(ROOT / "tests" / "kindless")]

from gateway.conftest import World, reset  # noqa: E402
from gateway.fake_engine import FakeEngine  # noqa: E402
from gateway.fake_kubernetes import FakeKubernetes  # noqa: E402
from gateway.pod import NAMESPACE, Config, GatewayPod, until  # noqa: E402
from imagebuild.inputs import require_packages  # noqa: E402
from webui.open_webui import SERVICE_KEY, USER_SECRET, OpenWebUI, install  # noqa: E402

__all__ = ["World", "reset"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.webui)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def program() -> Path:
    return install()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway with two models and the web chat's key, as the operator would write it."""
    kubernetes, engine = FakeKubernetes(), FakeEngine("one")
    pod = GatewayPod(tmp_path_factory.mktemp("gw"), kubernetes)
    world = World(kubernetes, [engine], pod)
    for service in ("qwen", "big"):
        kubernetes.put_endpoints(NAMESPACE, service, [engine.port])
    tokens = {"issuer": "open-webui", "secret": USER_SECRET, "required": True}
    config = Config().model("qwen").model("big").model("resting", stopped=True).key("alice", "sk-alice")
    config.key("rosa", "sk-rosa", owner="rosa@example.com")
    config.more = {
        "roles": [
            {"name": "admin", "models": ["*"]},
            {"name": "user", "models": ["qwen", "resting"]},
            {"name": "research", "models": ["big"], "groups": ["lab"]},
        ]
    }
    config.key("gateway-webui", SERVICE_KEY, userTokens=tokens).apply(kubernetes)
    try:
        pod.start()
        until(lambda: pod.request("GET", "/v1/models").status == 200, "the keys", 20)
        yield world
    finally:
        pod.stop()
        kubernetes.close()
        engine.close()


@pytest.fixture(scope="session")
def ui(program: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    """With accounts of its own."""
    ui = OpenWebUI(program, tmp_path_factory.mktemp("ui"), world.pod.port)
    ui.start()
    try:
        ui.wait_ready()
        yield ui
    finally:
        ui.stop()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's, where Playwright's own cannot be had."""
    require_packages({"chromium": "chromium"})
    return Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def playwright_installed() -> None:
    pip = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*pip, "--requirement", ROOT / "requirements-webui.txt"], check=True)
