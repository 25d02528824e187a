"""What a node has to fetch before anything of Stoker's can start."""

from __future__ import annotations

import json

from e2e.kube import Kube

MOST_BYTES = 250_000_000


def test_stokers_image_takes_at_most_250_mb_on_a_node(kube: Kube) -> None:
    name = kube.stoker_image()
    (node,) = json.loads(kube.kubectl("get", "nodes", "-o", "json"))["items"]
    sizes = [image["sizeBytes"] for image in node["status"]["images"] if name in image["names"]]
    assert sizes, f"the node lists no {name}"
    assert sizes[0] <= MOST_BYTES
