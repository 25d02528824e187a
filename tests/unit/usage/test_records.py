from __future__ import annotations

import json

from stoker.gateway.token_use import TokenCounter
from stoker.usage.collect import pod_addresses
from stoker.usage.records import Group, Sums, read_batch


def line(**more: object) -> str:
    return json.dumps({"time": "2026-03-01T10:00:00.000Z", "key": "alice", "model": "qwen", "code": 200, "flags": "-", **more}) + "\n"  # fmt: skip


def test_lines_of_one_group_are_added_up() -> None:
    text = line(prompt=10, completion=5, user="J%C3%BCrgen") * 2 + line(
        time="2026-03-01T11:00:00.000Z", code=400, user="J%C3%BCrgen"
    )
    batch, last = read_batch(text.encode(), TokenCounter())
    assert batch == {Group("2026-03-01", "alice", "alice", "Jürgen", "qwen"): Sums(3, 1, 20, 10, 0, 0, 0)}
    assert last == {"alice": "2026-03-01T11:00:00.000Z"}


def test_users_of_a_service_and_of_an_issuer_are_told_apart_by_their_callers() -> None:
    text = line(caller="alice ann") + line(caller="alice bob") + line(time="") + line(key="") + "{half"
    batch, _ = read_batch(text.encode(), TokenCounter())
    assert {group.caller for group in batch} == {"alice ann", "alice bob"}


def test_pods_are_found_by_the_name_of_their_port() -> None:
    def slice_(kind: str, port: str, *addresses: str) -> dict[str, object]:
        endpoints = [{"addresses": [address]} for address in addresses]
        return {"addressType": kind, "ports": [{"name": port, "port": 9090}], "endpoints": endpoints}

    six, four = slice_("IPv6", "policy", "fd00::1"), slice_("IPv4", "policy", "10.0.0.1", "10.0.0.2")
    assert pod_addresses([four, six, slice_("IPv4", "http", "10.0.0.9")]) == {"10.0.0.1:9090", "10.0.0.2:9090"}
    assert pod_addresses([six, {"addressType": "IPv4", "ports": None, "endpoints": None}]) == {"[fd00::1]:9090"}
