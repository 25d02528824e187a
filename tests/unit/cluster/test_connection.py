from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cluster import connection
from stoker.cluster.connection import Connection, ConnectionNotConfigured, read_connection


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(connection, "ACCOUNT_FOLDER", tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret\n")
    return tmp_path


async def test_a_pod_uses_its_service_account(account: Path) -> None:
    found = await read_connection()
    assert found.server == "https://10.0.0.1:443"
    assert found.bearer_token() == "secret"


async def test_an_ipv6_address_is_bracketed(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert (await read_connection()).server == "https://[fd00::1]:443"


async def test_kubeconfig_wins_and_a_useless_one_is_named(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(account / "absent"))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(account / "absent"))
    with pytest.raises(ConnectionNotConfigured, match="set KUBECONFIG"):
        await read_connection()


def test_a_renewed_token_is_read_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    now = 1000.0
    monkeypatch.setattr(connection.time, "monotonic", lambda: now)
    found = Connection(server="http://x", token_file=token)
    assert found.bearer_token() == "old"
    token.write_text("new")
    assert found.bearer_token() == "old"
    now += 61
    assert found.bearer_token() == "new"
