import json
import os
import subprocess
from dataclasses import asdict

import pytest
from kindless.cluster import Cluster, PortMapping, check_name, list_clusters, parse_cluster
from kindless.errors import KindlessError
from kindless.process import Process


def ended_process() -> Process:
    child = subprocess.Popen(["true"])
    identity = Process.of(child.pid) or Process(child.pid, "0")
    child.wait()
    return identity


def test_a_record_survives_being_written_and_read() -> None:
    cluster = Cluster("a", port_mappings=[PortMapping("127.0.0.1", 80, 30080)], creator=Process(1, "2"))
    assert parse_cluster(json.dumps(asdict(cluster))) == cluster


def test_clusters_are_found_by_their_records() -> None:
    Cluster("b").save()
    Cluster("a").save()
    assert [cluster.name for cluster in list_clusters()] == ["a", "b"]


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a/../b", "x" * 42])
def test_a_name_that_no_object_could_have_is_refused(name: str) -> None:
    with pytest.raises(KindlessError, match="not a valid cluster name"):
        check_name(name)


def test_a_folder_too_deep_for_a_socket_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_CACHE", "/" + "d" * 90)
    with pytest.raises(KindlessError, match="set STOKER_CACHE"):
        check_name("a")


def test_a_cluster_being_made_is_alive_as_long_as_its_maker() -> None:
    assert not Cluster("a", creator=Process.of(os.getpid())).dead
    assert Cluster("a", creator=ended_process()).dead


def test_a_finished_cluster_is_alive_as_long_as_its_processes() -> None:
    assert not Cluster("a", phase="Ready", supervisor=Process.of(os.getpid())).dead
    assert Cluster("a", phase="Ready", supervisor=ended_process()).dead


def test_a_process_number_used_again_is_another_process() -> None:
    mine = Process.of(os.getpid())
    assert mine is not None
    assert mine.alive
    assert not Process(mine.pid, "1").alive


def test_a_failed_cluster_that_was_retained_is_not_swept_away() -> None:
    assert not Cluster("a", phase="Failed", creator=ended_process(), supervisor=ended_process()).dead
