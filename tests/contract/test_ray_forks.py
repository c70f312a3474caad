"""Workers of an embedded Ray are forked from one process, and are then what a process that was started would be."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kodo.node.executors.niceness import NICE, nice_of_session
from kodo.node.executors.ray.cluster import driver_environment, find_cluster, start_cluster, stop_cluster

SERVER = "kodo.node.executors.ray.forking.server"

DRIVER = """
import json, os, sys
import ray
ray.init(address=sys.argv[1], _node_ip_address="127.0.0.1", namespace="n", log_to_driver=False)

def parent_of(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])

class Worker:
    def tell(self):
        import random, signal, tempfile, uuid
        import numpy
        from ray._raylet import UniqueID
        return {
            "job": ray.get_runtime_context().get_job_id(),
            "pid": os.getpid(), "server": parent_of(os.getppid()), "group": os.getpgrp(), "folder": os.getcwd(),
            "script": sys.argv[0], "main": sys.modules["__main__"].__file__, "path": sys.path,
            "environment": dict(os.environ), "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "weight": open("/proc/self/oom_score_adj").read().strip(),
            "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                                  if os.path.exists(f"/proc/self/fd/{n}")),
            "random": [random.random(), numpy.random.rand(), str(uuid.uuid4()), tempfile.mktemp(),
                       UniqueID.from_random().hex()],
        }

kept = []
for line in sys.stdin:
    variables = json.loads(line)
    actor = ray.remote(num_cpus=0)(Worker).options(runtime_env={"env_vars": variables}).remote()
    kept = [*kept[-1:], actor]  # one that no one has a handle of ends
    print(json.dumps(ray.get(actor.tell.remote())), flush=True)
"""

Ask = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("home")
    try:
        start_cluster(made, num_cpus=2, object_store_bytes=100_000_000)
        yield made
    finally:
        stop_cluster(made)


@contextlib.contextmanager
def driver(home: Path) -> Iterator[Ask]:
    """A job of Ray's; ask it for a worker with further variables, which tells what it is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, find_cluster(home).address],
        env={**kept, **driver_environment(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def ask(**variables: str) -> dict[str, Any]:
            process.stdin.write(json.dumps(variables) + "\n")
            process.stdin.flush()
            while not (line := process.stdout.readline()).startswith("{"):  # Ray prints too
                assert line, "the driver has ended"
            return json.loads(line)

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def ask(home):
    with driver(home) as asking:
        yield asking


def gone(pid: int) -> bool:
    """Wait at most 10 s for a process to end."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        deadline = time.monotonic() + 10
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


def test_a_worker_is_forked_and_has_what_it_was_to_have(ask: Ask) -> None:
    told = ask(KODO_RUNNER="runner-1", KODO_TEXT="=a b\n")
    assert SERVER in psutil.Process(told["server"]).cmdline()
    assert told["group"] == told["pid"]
    # Ray has workers nice, which Linux looks at within a session only.
    assert os.getpriority(os.PRIO_PROCESS, told["pid"]) >= NICE
    assert os.getsid(told["pid"]) == told["server"] != os.getsid(0)
    assert nice_of_session(told["pid"]) in (NICE, None)
    assert told["script"] == told["main"]
    assert told["main"].endswith("default_worker.py")
    assert told["environment"]["KODO_TEXT"] == "=a b\n"
    assert told["children"]
    assert told["weight"] == "1000"
    assert not any(name.endswith(".fork") for name in told["descriptors"])
    # For others too it is of that runner: so it is found when its flow has ended.
    assert psutil.Process(told["pid"]).environ()["KODO_RUNNER"] == "runner-1"


def test_a_forked_worker_and_one_that_was_started_have_the_same_environment(ask: Ask) -> None:
    forked, started = ask(KODO_RUNNER="runner-2"), ask(KODO_RUNNER="runner-2", PYTHONHASHSEED="7")
    assert SERVER not in psutil.Process(started["server"]).cmdline()
    assert started["environment"].pop("PYTHONHASHSEED") == "7"
    assert forked["environment"] == started["environment"]
    same = ["folder", "weight", "path", "script", "main"]
    assert [forked[name] for name in same] == [started[name] for name in same]


def test_workers_share_no_random_numbers(ask: Ask) -> None:
    one, other = ask(KODO_RUNNER="runner-3"), ask(KODO_RUNNER="runner-4")
    assert one["server"] == other["server"]
    assert not set(one["random"]) & set(other["random"])


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\4abcd", b"\xff" * 9])
def test_a_request_that_is_none_is_declined(home: Path, ask: Ask, said: bytes) -> None:
    server = ask(KODO_RUNNER="runner-5")["server"]
    (path,) = Path(find_cluster(home).session_dir).glob("sockets/*.fork")
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.connect(str(path))
        knocking.sendall(said)
        knocking.shutdown(socket.SHUT_WR)
        assert knocking.recv(10) in (b"0", b"")
    assert ask(KODO_RUNNER="runner-6")["server"] == server


def test_a_later_job_has_a_server_of_its_own_and_the_earlier_one_none_any_more(home: Path, ask: Ask) -> None:
    before = ask(KODO_RUNNER="runner-7")
    with driver(home) as later:
        after = later(KODO_RUNNER="runner-8")
        assert SERVER in psutil.Process(after["server"]).cmdline()
        assert after["job"] == after["environment"]["RAY_JOB_ID"] != before["job"]
        assert gone(before["server"])
        started = ask(KODO_RUNNER="runner-9")
        assert started["job"] == before["job"]
        assert later(KODO_RUNNER="runner-10")["server"] == after["server"]


def test_a_server_that_died_is_replaced_and_its_workers_live(home: Path) -> None:
    with driver(home) as ask:
        before = ask(KODO_RUNNER="runner-11")
        os.kill(before["server"], signal.SIGKILL)
        after = ask(KODO_RUNNER="runner-12")
        assert after["server"] != before["server"]
        assert SERVER in psutil.Process(after["server"]).cmdline()
        assert psutil.pid_exists(before["pid"])


def test_the_server_ends_with_its_raylet(home: Path) -> None:
    with driver(home) as ask:
        server = ask(KODO_RUNNER="runner-13")["server"]
    raylet = next(pid for pid, _, part in find_cluster(home).processes if part == "raylet")
    os.kill(raylet, signal.SIGKILL)
    assert gone(server)
