"""What an embedded Ray leaves open: every listening socket is on loopback, and none answers without the token."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kodo.node.executors.ray.cluster import driver_environment, listening_sockets, start_cluster, stop_cluster

DRIVER = """
import os, sys
import ray
ray.init(address=sys.argv[1], _node_ip_address="127.0.0.1", namespace="n", log_to_driver=False)

@ray.remote(num_cpus=0)
class Actor:
    def pid(self):
        return os.getpid()

actor = Actor.remote()
print(ray.get(actor.pid.remote()), flush=True)
sys.stdin.readline()
"""

KNOCK = """
import sys
import ray
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_get(b"session_name", namespace=b"session", timeout=5))
except Exception as error:
    print("refused", type(error).__name__, str(error)[:200])
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    try:
        yield home, start_cluster(home, num_cpus=2, object_store_bytes=100_000_000)
    finally:
        stop_cluster(home)


def run(script: str, address: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", script, address],
        env={**clean, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_head_raylet_workers_and_driver_listen_on_loopback_only(cluster):
    home, ray = cluster
    driver = run(DRIVER, ray.address, driver_environment(home))
    try:
        worker = int(driver.stdout.readline())
        sockets = listening_sockets(home)
        sockets += [
            (driver.pid, "driver", connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(driver.pid).net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    finally:
        driver.communicate("\n", timeout=30)
    assert {pid for pid, _, _, _ in sockets} >= {worker, driver.pid}
    assert int(ray.address.rpartition(":")[2]) in [port for _, _, _, port in sockets]
    assert [entry for entry in sockets if entry[2] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def test_there_is_no_dashboard(cluster):
    _, ray = cluster
    assert sorted(name for _, _, name in ray.processes) == ["gcs_server", "raylet"]


def knock(address: str, environment: dict[str, str]) -> str:
    process = run(KNOCK, address, environment)
    answer, _ = process.communicate(timeout=60)
    return answer.strip()


def test_the_head_answers_with_the_token_and_refuses_without(cluster, tmp_path: Path):
    home, ray = cluster
    right = driver_environment(home)
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    assert knock(ray.address, right).startswith("b'session_")
    assert knock(ray.address, {**right, "RAY_AUTH_TOKEN_PATH": str(wrong)}).startswith("refused")
    assert knock(ray.address, {**right, "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": ""}).startswith("refused")


def test_the_token_in_the_users_home_is_not_touched(cluster):
    home, _ = cluster
    token = Path.home() / ".ray" / "auth_token"
    assert not token.exists() or token.read_text() != (home / "ray" / "token").read_text()
