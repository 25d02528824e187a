from __future__ import annotations

import json

import pytest

from stoker.api.resolved import PublishedModel
from stoker.desired.gateway_routes import backend_secrets, build_named_routes, check_named_routes
from stoker.errors import Stalled
from stoker.gateway.config import parse_routes

EXTERNAL = {"url": "https://api.example.com/v1", "model": "big", "secretRef": {"name": "abroad"}}
ROUTE = {"name": "smart", "models": [{"model": "smol", "weight": 9}], "fallbacks": [{"model": "gpt-4o"}, {"external": EXTERNAL}]}  # fmt: skip


@pytest.fixture
def models(make_model):
    return (PublishedModel(make_model("smol", aliases=["gpt-4o"]), stopped=False),)


def test_a_gateway_is_told_its_routes_and_reads_them(make_gateway, models) -> None:
    gateway = make_gateway(routes=[ROUTE])
    assert backend_secrets(gateway) == {"abroad"}
    told = build_named_routes(gateway, {"abroad": "sk-x\n"})
    assert told == [
        {
            "name": "smart",
            "backends": [
                {"model": "smol", "weight": 9},
                {"model": "gpt-4o"},
                {"model": "big", "url": "https://api.example.com/v1", "key": "sk-x"},
            ],
        }
    ]
    entry = {"name": "smol", "aliases": ["gpt-4o"], "namespace": "team", "deployment": "smol", "task": "Chat"}
    (read,) = parse_routes(json.dumps({"models": [entry], "routes": told})).routes
    assert [backend.model for backend in read.backends] == ["smol", "gpt-4o", "big"]
    check_named_routes(gateway, models, {"abroad": "sk-x"})


def test_a_model_that_is_not_published_is_named(make_gateway, models) -> None:
    with pytest.raises(Stalled) as stalled:
        check_named_routes(make_gateway(routes=[{"name": "smart", "models": [{"model": "gone"}]}]), models, {})
    assert (stalled.value.reason, "model gone" in stalled.value.message) == ("RouteModelNotFound", True)


def test_a_backend_without_its_key_is_left_out_and_named(make_gateway, models) -> None:
    gateway = make_gateway(routes=[ROUTE])
    assert len(build_named_routes(gateway, {})[0]["backends"]) == 2
    with pytest.raises(Stalled) as stalled:
        check_named_routes(gateway, models, {})
    assert stalled.value.reason == "BackendSecretMissing"
    assert "kubectl create secret generic abroad" in stalled.value.message
