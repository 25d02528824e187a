"""What a node has to fetch before anything of Stoker's can start."""

from __future__ import annotations

from e2e.kube import OPERATOR, OPERATOR_NAMESPACE, Kube

MOST_BYTES = 250_000_000
WEIGH = """
import os
found = {}
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == os.lstat("/").st_dev]
    for name in files:
        stat = os.lstat(os.path.join(folder, name))
        found[stat.st_dev, stat.st_ino] = stat.st_size
print(sum(size for (device, _), size in found.items() if device == os.lstat("/").st_dev))
"""


def test_stokers_image_holds_at_most_250_mb(kube: Kube) -> None:
    """Files on the root of a container that writes nothing there."""
    size = int(kube.kubectl("exec", "-n", OPERATOR_NAMESPACE, f"deployment/{OPERATOR}", "--", "python", "-c", WEIGH))
    assert 100_000_000 < size <= MOST_BYTES
