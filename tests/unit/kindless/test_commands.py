from pathlib import Path

import pytest
from kindless.cluster import PortMapping
from kindless.commands import read_port_mappings
from kindless.errors import KindlessError

CONFIG = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraPortMappings:
  - {containerPort: 30080, hostPort: 8080}
  - {containerPort: 30443, hostPort: 8443, listenAddress: 0.0.0.0}
"""


def read(tmp_path: Path, text: str) -> list[PortMapping]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_port_mappings(str(path))


def test_port_mappings_stay_on_loopback_unless_asked(tmp_path: Path) -> None:
    assert read(tmp_path, CONFIG) == [PortMapping("127.0.0.1", 8080, 30080), PortMapping("0.0.0.0", 8443, 30443)]


@pytest.mark.parametrize("text", ["", "{}", "kind: Cluster", '{"kind": "Cluster"}'])
def test_a_config_without_nodes_is_a_plain_cluster(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [{role: control-plane}, {role: worker}]", "one node here; add simulated ones with --kwok-nodes"),
        ("nodes: [{extraMounts: []}]", r"not supported without Docker: nodes\[0\].extraMounts"),
        ("nodes: [{extraPortMappings: [{containerPort: 1, hostPort: 1, protocol: UDP}]}]", "TCP only"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(KindlessError, match=message):
        read(tmp_path, text)
