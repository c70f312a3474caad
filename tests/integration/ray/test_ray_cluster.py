"""An embedded Ray: found again, private, stopped without a rest; needs no connection to Ray."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from kodo.node.executors.ray import cluster as ray_cluster
from kodo.node.executors.ray.cluster import find_cluster, start_cluster, stop_cluster
from kodo.p2p.errors import UsageError


def start(home: Path) -> ray_cluster.RayCluster:
    return start_cluster(home, num_cpus=2, object_store_bytes=100_000_000)


def processes_of(home: Path) -> list[psutil.Process]:
    return ray_cluster._tree(home, ray_cluster._read_record(home))


@pytest.fixture
def homes(tmp_path: Path):
    made = [tmp_path / "a", tmp_path / ("long-name-" * 12) / "b"]
    for home in made:
        home.mkdir(parents=True)
    try:
        yield made
    finally:
        for home in made:
            stop_cluster(home)


def test_two_homes_start_at_once_whatever_their_paths_and_end_without_a_rest(homes):
    with ThreadPoolExecutor() as pool:
        clusters = list(pool.map(start, homes))
    assert clusters[0].address != clusters[1].address
    assert [find_cluster(home) for home in homes] == clusters
    assert start(homes[0]) == clusters[0]
    for home in homes:
        private = [home / "ray", home / "ray" / "sessions", home / "ray" / "token", home / "ray" / "cluster.json"]
        assert [path.stat().st_mode & 0o077 for path in private] == [0, 0, 0, 0]
        # Ray makes them for everybody; what is deeper lies in these.
        session = next((home / "ray" / "sessions").glob("session_2*"))
        inside = [session, *(path for path in session.iterdir() if path.is_dir() and not path.is_symlink())]
        assert len(inside) > 2
        assert [path.name for path in inside if path.stat().st_mode & 0o077] == []
    processes = [process for home in homes for process in processes_of(home)]
    assert len(processes) >= 6
    for home in homes:
        stop_cluster(home)
        stop_cluster(home)
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert [find_cluster(home) for home in homes] == [None, None]
    assert not Path(clusters[1].temp_dir).exists()


def test_a_home_whose_ray_was_killed_gets_a_new_one(homes):
    first = start(homes[0])
    for process in processes_of(homes[0]):
        if process.name() == "gcs_server":
            process.kill()
            process.wait()
    assert find_cluster(homes[0]) is None
    second = start(homes[0])
    assert second.address != first.address
    assert not {pid for pid, _, _ in first.processes} & {pid for pid, _, _ in second.processes}
    assert not [pid for pid, created, _ in first.processes if ray_cluster._alive(pid, created)]


def test_a_folder_that_took_the_place_of_ours_among_temporary_files_is_not_used(homes):
    first = start(homes[1])
    link = Path(first.temp_dir)
    link.unlink()
    link.mkdir()
    assert find_cluster(homes[1]) is None
    second = start(homes[1])
    assert second.temp_dir != first.temp_dir
    assert list(link.iterdir()) == []
    link.rmdir()
    link.parent.rmdir()


def test_sizes_out_of_range_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(UsageError):
        start_cluster(tmp_path, num_cpus=0)
    with pytest.raises(UsageError):
        start_cluster(tmp_path, object_store_bytes=1)
    assert not (tmp_path / "ray").exists()
