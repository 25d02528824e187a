from concurrent.futures import ThreadPoolExecutor

from kindless.cleanup import remove_directory
from kindless.cluster import Cluster


def test_two_commands_that_sweep_up_the_same_cluster_do_not_trip_over_each_other() -> None:
    for _ in range(30):
        cluster = Cluster("a")
        cluster.save()
        for number in range(20):
            (cluster.directory / f"folder{number}").mkdir()
            (cluster.directory / f"file{number}").touch()
        with ThreadPoolExecutor(4) as commands:
            list(commands.map(remove_directory, [cluster] * 4))
        assert not cluster.directory.exists()
