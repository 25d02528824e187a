from __future__ import annotations

import pytest

from stoker.environment import Environment, NotConfigured
from stoker.settings import DEFAULT_IMAGE, read_settings


def test_defaults_are_a_cluster_wide_operator() -> None:
    settings, process = read_settings(Environment({}))
    assert settings.stoker_image == DEFAULT_IMAGE
    assert settings.cluster_scoped
    assert settings.allow_pod_template
    assert process.namespaces == ()
    assert (process.lease_name, process.http_port) == ("stoker-operator", 8080)


def test_everything_the_chart_says_is_understood() -> None:
    environment = Environment(
        {
            "POD_NAME": "operator-1",
            "POD_NAMESPACE": "system",
            "STOKER_IMAGE": "registry/stoker:2",
            "STOKER_IMAGE_PULL_POLICY": "Always",
            "STOKER_IMAGE_PULL_SECRETS": "a, b,",
            "STOKER_ENVOY_IMAGE": "envoy:1",
            "STOKER_WATCH_NAMESPACES": "team-a,team-b",
            "STOKER_ALLOW_POD_TEMPLATE": "false",
            "STOKER_OPERATOR_LABELS": "app.kubernetes.io/name=stoker,x=y=z",
            "STOKER_LOG_LEVEL": "debug",
        }
    )
    settings, process = read_settings(environment)
    assert settings.image_pull_secrets == ("a", "b")
    assert settings.operator_labels == {"app.kubernetes.io/name": "stoker", "x": "y=z"}
    assert settings.operator_namespace == process.lease_namespace == "system"
    assert not settings.cluster_scoped
    assert not settings.allow_pod_template
    assert process.namespaces == ("team-a", "team-b")
    assert (process.identity, process.log_level) == ("operator-1", "DEBUG")


@pytest.mark.parametrize(
    "wrong",
    [
        {"STOKER_ALLOW_POD_TEMPLATE": "perhaps"},
        {"STOKER_OPERATOR_LABELS": "app"},
        {"STOKER_WORKERS": "many"},
        {"STOKER_HTTP_PORT": "-1"},
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(wrong: dict[str, str]) -> None:
    with pytest.raises(NotConfigured, match=next(iter(wrong))):
        read_settings(Environment(wrong))
