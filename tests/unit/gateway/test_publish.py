from __future__ import annotations

import json
from typing import Any

import pytest
from gateway.certificates import make_certificate
from unit.gateway.conftest import Clock, key, keys, model, routes

from stoker.gateway.publish import LINGER_SECONDS, Publisher, ready_addresses
from stoker.gateway.settings import Settings


def slice_of(
    service: str, *addresses: str, name: str = "", kind: str = "IPv4", ports: Any = None, **conditions: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name or f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": kind,
        "ports": [{"name": "http", "port": 8080}] if ports is None else ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True, **conditions}} for address in addresses],
    }


@pytest.fixture
def publisher(settings: Settings, clock: Clock) -> Publisher:
    made = Publisher(settings, clock=clock)
    made.set_routes(routes(model("qwen"), model("embed", task="Embedding")))
    made.set_keys("gateway-keys-0", keys(key("alice", "sk-alice")))
    made.set_slices("team-a", [slice_of("qwen", "10.0.0.1", "10.0.0.2"), slice_of("other", "10.0.0.9")])
    return made


def known_to_envoy(settings: Settings) -> list[str]:
    document = json.loads((settings.xds / "eds" / "engines.json").read_bytes())
    found = document["resources"][0]["endpoints"][0]["lb_endpoints"]
    return [entry["endpoint"]["address"]["socket_address"]["address"] for entry in found]


def ready(settings: Settings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((settings.state / "endpoints.json").read_bytes())
    return found


QWEN = {"team-a/qwen": ["10.0.0.1:8080", "10.0.0.2:8080"]}


def publish(publisher: Publisher) -> bool:
    changed = publisher.write_envoy_files()
    return publisher.write_state() or changed


def test_everything_is_written_once(publisher: Publisher, settings: Settings) -> None:
    assert publish(publisher)
    assert settings.bootstrap.exists()
    assert known_to_envoy(settings) == ["10.0.0.1", "10.0.0.2"]
    assert ready(settings) == QWEN
    assert (settings.xds / "cds.json").exists()
    assert json.loads((settings.state / "keys.json").read_bytes())["keys"][0]["name"] == "alice"
    assert not publish(publisher), "nothing has changed"


def test_a_second_process_finds_nothing_to_write(publisher: Publisher, settings: Settings) -> None:
    publish(publisher)
    times = {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*.json")}
    again = Publisher(settings)
    again.set_routes(routes(model("qwen"), model("embed", task="Embedding")))
    again.set_keys("gateway-keys-0", keys(key("alice", "sk-alice")))
    again.set_slices("team-a", [slice_of("qwen", "10.0.0.2", "10.0.0.1")])
    assert not publish(again)
    assert {path: path.stat().st_mtime_ns for path in settings.folder.rglob("*.json")} == times


def test_nothing_is_written_before_there_are_routes(settings: Settings) -> None:
    publisher = Publisher(settings)
    publisher.set_keys("gateway-keys-0", keys())
    assert not publish(publisher)
    assert not list(settings.folder.rglob("*.json"))
    assert publisher.missing_keys() == ["routes"]


def test_what_is_missing_is_named(settings: Settings) -> None:
    publisher = Publisher(settings)
    publisher.set_routes(routes(model("qwen"), keySecrets=["a", "b"]))
    publisher.set_keys("b", keys())
    assert publisher.missing_keys() == ["a"]
    assert publisher.unlisted_namespaces() == ["team-a"]


def test_endpoints_of_a_namespace_that_was_not_listed_stay_as_they_are(
    publisher: Publisher, settings: Settings
) -> None:
    publish(publisher)
    again = Publisher(settings)
    again.set_routes(routes(model("qwen"), model("new", namespace="team-b")))
    again.set_keys("gateway-keys-0", keys(key("alice", "sk-alice")))
    publish(again)
    assert known_to_envoy(settings) == ["10.0.0.1", "10.0.0.2"]
    assert ready(settings) == QWEN
    again.set_slices("team-a", [])
    publish(again)
    assert ready(settings) == {}


def test_the_policy_hears_of_an_endpoint_only_when_envoys_files_have_it(settings: Settings) -> None:
    seen: list[tuple[dict[str, list[str]], list[str]]] = []
    publisher = Publisher(settings, lambda: seen.append((ready(settings), known_to_envoy(settings))))
    publisher.set_routes(routes(model("qwen")))
    publisher.set_keys("gateway-keys-0", keys())
    publisher.set_slices("team-a", [slice_of("qwen", "10.0.0.1")])
    publish(publisher)
    publisher.put_slice("team-a", slice_of("qwen", "10.0.0.2"))
    publish(publisher)
    assert seen == [
        ({"team-a/qwen": ["10.0.0.1:8080"]}, ["10.0.0.1"]),
        ({"team-a/qwen": ["10.0.0.2:8080"]}, ["10.0.0.1", "10.0.0.2"]),
    ]


def test_endpoints_of_a_model_that_is_gone_stay_known_to_envoy_for_what_runs_there(
    publisher: Publisher, settings: Settings
) -> None:
    publish(publisher)
    publisher.set_routes(routes(model("embed", task="Embedding")))
    publish(publisher)
    assert ready(settings) == {}
    assert known_to_envoy(settings) == ["10.0.0.1", "10.0.0.2"]


def test_slices_come_change_and_go(publisher: Publisher, settings: Settings, clock: Clock) -> None:
    publisher.put_slice("team-a", slice_of("embed", "10.0.0.5"))
    assert publisher.new_endpoints() == {"10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.5:8080"}
    publish(publisher)
    assert publisher.new_endpoints() == set()
    assert ready(settings) == {"team-a/embed": ["10.0.0.5:8080"], **QWEN}
    publisher.drop_slice("team-a", slice_of("embed"))
    publish(publisher)
    assert ready(settings) == QWEN
    assert known_to_envoy(settings) == ["10.0.0.1", "10.0.0.2", "10.0.0.5"], "for what was sent there already"
    assert publisher.due_in == LINGER_SECONDS
    clock.now += LINGER_SECONDS
    publish(publisher)
    assert known_to_envoy(settings) == ["10.0.0.1", "10.0.0.2"]
    assert publisher.due_in is None


def test_keys_of_a_secret_that_routes_no_longer_name_are_out(publisher: Publisher, settings: Settings) -> None:
    publisher.set_routes(routes(model("qwen"), keySecrets=[]))
    publish(publisher)
    assert json.loads((settings.state / "keys.json").read_bytes())["keys"] == []


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"models": 5}', b'{"keys": 5}'])
def test_a_broken_document_is_not_taken_over(publisher: Publisher, settings: Settings, broken: bytes) -> None:
    publish(publisher)
    if b"keys" not in broken:
        publisher.set_routes(broken)
    publisher.set_keys("gateway-keys-0", broken if b"models" not in broken else b"[]")
    assert not publish(publisher)


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({}, True),
        ({"ready": True, "terminating": False}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
        ({"ready": True, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_only_what_is_ready_and_stays_gets_requests(conditions: dict[str, Any], used: bool) -> None:
    assert bool(ready_addresses([slice_of("qwen", "10.0.0.1", **conditions)])) == used


def test_the_engines_port_is_the_one_named_http_or_the_only_one() -> None:
    several = [{"name": "metrics", "port": 9100}, {"name": "http", "port": 8000}]
    assert ready_addresses([slice_of("q", "10.0.0.1", ports=several)]) == {("10.0.0.1", 8000)}
    assert ready_addresses([slice_of("q", "10.0.0.1", ports=[{"name": "", "port": 8001}])]) == {("10.0.0.1", 8001)}
    assert ready_addresses([slice_of("q", "10.0.0.1", ports=several[:1] * 2)]) == set()
    assert ready_addresses([slice_of("q", "10.0.0.1", ports=[])]) == set()


def test_a_pod_with_two_addresses_is_one_replica() -> None:
    four, six = slice_of("q", "10.0.0.1"), slice_of("q", "fd00::1", name="q-6", kind="IPv6")
    assert ready_addresses([four, six]) == {("10.0.0.1", 8080)}
    assert ready_addresses([six]) == {("fd00::1", 8080)}
    assert ready_addresses([slice_of("q", "example.com", kind="FQDN")]) == set()


def test_https_begins_with_its_certificate_and_never_falls_back(settings: Settings) -> None:
    publisher = Publisher(settings)
    publisher.set_routes(routes(model("qwen"), tls="front"))
    publisher.set_keys("gateway-keys-0", keys())
    publisher.set_certificate("front", *make_certificate()[:1], b"not its key")
    publish(publisher)
    listener = settings.xds / "lds.json"
    assert not listener.exists()
    publisher.set_certificate("front", *make_certificate())
    publish(publisher)
    assert b"transport_socket" in listener.read_bytes()
    # The next process does not know the certificate yet: what serves goes on serving.
    again = Publisher(settings)
    again.set_routes(routes(model("qwen"), tls="front"))
    again.set_keys("gateway-keys-0", keys())
    assert not publish(again)
    assert settings.certificate.exists()
    again.set_routes(routes(model("qwen")))
    publish(again)
    assert b"transport_socket" not in listener.read_bytes()
    assert not settings.certificate.exists(), "a private key is not left behind"


@pytest.mark.parametrize("tls", [7, "", "Not A Name", ["front"]])
def test_a_certificates_name_that_cannot_be_read_does_not_become_http(settings: Settings, tls: Any) -> None:
    publisher = Publisher(settings)
    publisher.set_routes(routes(model("qwen"), tls=tls))
    assert publisher.routes is None
