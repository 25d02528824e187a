"""Fixtures of the tests on a real control plane."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Generator, Iterator

import pytest
import pytest_asyncio
from integration.api_server import api_server
from integration.control_plane import ControlPlane, OperatorProcess, control_plane

from stoker.cluster.client import KubeClient

__all__ = ["api_server"]

CLUSTER = "stoker-integration"
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the operators said last."""
    report = yield
    if report.failed:
        for operator in OperatorProcess.made:
            if operator.log.exists():
                report.sections.append((operator.log.name, "\n".join(operator.log.read_text().splitlines()[-40:])))
    return report


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests; its nodes have no devices."""
    with control_plane(CLUSTER, tmp_path_factory.mktemp("plane"), kwok_nodes=2) as made:
        yield made


@pytest.fixture(scope="session")
def shared_operator(plane: ControlPlane) -> Iterator[OperatorProcess]:
    """The operator that most tests share."""
    operator = OperatorProcess(plane, "operator")
    yield operator
    operator.stop()


@pytest.fixture
def operator(shared_operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The shared operator, running; a test that stops it need not start it again."""
    if not shared_operator.running:
        shared_operator.start()
    said_before = len(shared_operator.messages())
    yield shared_operator
    bugs = [entry for entry in shared_operator.messages()[said_before:] if "exception" in entry]
    assert not bugs, bugs[0]["exception"]


@pytest_asyncio.fixture
async def client(plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """An admin's client."""
    async with plane.client() as made:
        yield made


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"team-{next(_numbers)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")
