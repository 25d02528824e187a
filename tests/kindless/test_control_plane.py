"""A control plane without a node: quick, several at a time, and for any user."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kindless.tools import kubebox_dir

from .conftest import HERE, Kind

pytestmark = [pytest.mark.kindless]

NOBODY = 65534


@pytest.fixture(scope="module")
def plane(module_kind: Kind) -> Kind:
    module_kind(
        *("create", "cluster", "--name", "plane", "--control-plane-only"),
        *("--kwok-nodes", "3", "--kwok-capacity", "nvidia.com/gpu=8", "--kwok-capacity", "cpu=4"),
    )
    return module_kind


def test_simulated_nodes_are_ready_and_offer_what_was_asked_for(plane: Kind) -> None:
    nodes = json.loads(plane.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["kwok-0", "kwok-1", "kwok-2"]
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"8"}
    assert {node["status"]["allocatable"]["cpu"] for node in nodes} == {"4"}


def test_pods_are_scheduled_by_their_gpus_and_become_ready(plane: Kind) -> None:
    pod = {
        "containers": [{"name": "c", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 8}}}],
        "initContainers": [{"name": "sidecar", "image": "any", "restartPolicy": "Always"}],
    }
    labels = {"app": "gpu"}
    spec = {
        "replicas": 4,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gpu"}, "spec": spec}
    plane.kubectl("apply", "-f", "-", text=json.dumps(deployment))
    plane.kubectl("wait", "deployment/gpu", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=120s")
    events = ("get", "events", "--field-selector", "reason=FailedScheduling", "-o", "jsonpath={..message}")
    deadline = time.monotonic() + 60
    while "Insufficient nvidia.com/gpu" not in (pending := plane.kubectl(*events)):
        assert time.monotonic() < deadline, pending


def test_a_second_one_runs_beside_it(plane: Kind) -> None:
    plane("create", "cluster", "--name", "second", "--control-plane-only")
    assert plane.clusters() == ["plane", "second"]
    assert plane.kubectl("--context", "kind-second", "get", "nodes") == ""
    assert "kwok-0" in plane.kubectl("--context", "kind-plane", "get", "nodes")
    plane("delete", "cluster", "--name", "second")
    config = json.loads(plane.kubeconfig.read_text())
    assert [context["name"] for context in config["contexts"]] == ["kind-plane"]


def test_the_same_name_is_refused_while_it_runs(plane: Kind) -> None:
    again = plane("create", "cluster", "--name", "plane", "--control-plane-only", check=False)
    assert again.returncode == 1
    assert 'node(s) already exist for a cluster with the name "plane"' in again.stderr


def test_images_cannot_be_loaded_where_nothing_runs(plane: Kind) -> None:
    refused = plane("load", "image-archive", "--name", "plane", "x.tar", check=False)
    assert refused.stderr.strip() == 'ERROR: cluster "plane" has no node that could run an image (--control-plane-only)'


@pytest.fixture
def cache_of_nobody(kind: Kind) -> Iterator[Path]:
    """Executables are linked, since an ordinary user cannot look into root's cache."""
    cache = kind.cache.with_name(kind.cache.name + "-nobody")
    tools = kubebox_dir()
    (cache / "bin" / tools.name).mkdir(parents=True)
    for file in ("kubebox", "pause"):
        try:
            (cache / "bin" / tools.name / file).hardlink_to(tools / file)
        except OSError:
            shutil.copy2(tools / file, cache / "bin" / tools.name / file)
    (cache / "bin" / tools.name / "kubectl").symlink_to("kubebox")
    sources = cache / "sources"
    shutil.copytree(HERE, sources, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    for path in (cache, *cache.rglob("*")):
        if not path.is_symlink() and path.parent.name != tools.name:
            os.chown(path, NOBODY, NOBODY)
    yield cache
    shutil.rmtree(cache)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become somebody else; as another user the other tests show it"
)
def test_an_ordinary_user_can_make_one(cache_of_nobody: Path) -> None:
    """Needs a Python that everybody may execute."""
    python = next((path for path in (sys.executable, "/usr/bin/python3") if runs_as_nobody(path)), None)
    if python is None:
        pytest.skip("no Python 3.11 that an ordinary user could run")

    def run(*arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "STOKER_CACHE": str(cache_of_nobody), "HOME": str(cache_of_nobody)}
        command = [python, str(cache_of_nobody / "sources" / "kind"), *arguments]
        done = subprocess.run(
            command,
            env=environment,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("create", "cluster", "--control-plane-only", "--kwok-nodes", "1")
        assert run("get", "clusters") == "kind\n"
    finally:
        run("delete", "cluster")
    assert run("get", "clusters") == ""


def runs_as_nobody(python: str) -> bool:
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run(
            [python, "-c", check], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0
