from __future__ import annotations

import pytest

from stoker.environment import Environment, NotConfigured
from stoker.gateway.settings import Settings


def test_only_name_and_namespace_have_no_default() -> None:
    settings = Settings.from_environment(Environment({"STOKER_GATEWAY_NAMESPACE": "a", "STOKER_GATEWAY_NAME": "b"}))
    assert (settings.namespace, settings.name, settings.listen_port, settings.http_port) == ("a", "b", 8080, 9090)
    assert str(settings.bootstrap) == "/run/stoker/bootstrap.json"
    with pytest.raises(NotConfigured, match="STOKER_GATEWAY_NAME"):
        Settings.from_environment(Environment({"STOKER_GATEWAY_NAMESPACE": "a"}))


def test_every_setting_can_be_given() -> None:
    environment = Environment(
        {
            "STOKER_GATEWAY_NAMESPACE": "a",
            "STOKER_GATEWAY_NAME": "b",
            "STOKER_GATEWAY_FOLDER": "/x",
            "STOKER_GATEWAY_ADDRESS": "127.0.0.1",
            "STOKER_GATEWAY_PORT": "1",
            "STOKER_GATEWAY_HTTP_PORT": "2",
            "STOKER_GATEWAY_DRAIN_PORT": "5",
            "STOKER_GATEWAY_INSIDE_PORT": "6",
            "STOKER_ENVOY_HEAP_BYTES": "3",
            "STOKER_DRAIN_SECONDS": "4",
        }
    )
    settings = Settings.from_environment(environment)
    assert settings.inside_port == 6
    assert (settings.listen_address, settings.listen_port, settings.http_port, settings.drain_port) == (
        "127.0.0.1",
        1,
        2,
        5,
    )
    assert (settings.envoy_heap_bytes, settings.drain_seconds, str(settings.policy_socket)) == (
        3,
        4,
        "/x/policy.sock",
    )
