"""An embedded Ray: processes of its own that a restarted node finds again, stopped to the last one.

The node never owns Ray's life: a node that dies leaves Ray, and so its runs, alive. What ties the two together is a
record, `$KODO_HOME/ray/cluster.json`.

What is open: nothing beyond the loopback interface. Ray 2.60 turns a given 127.0.0.1 into the machine's address
unless the switch that its macOS and Windows builds use (`RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`) is set; with it the
head, the raylet, the agents, every worker and the driver listen on 127.0.0.1 only. `tests/contract/test_ray_ports.py`
lists every listening socket and holds us to that. Other users of this machine can reach loopback: what they meet is
Ray's token authentication, with a token of this home's own (0600), never the one in `~/.ray`.

Everything Ray writes (logs, sockets, spilled objects) lies under `$KODO_HOME/ray`, mode 0700, as is each session's
folder. A path to a Unix socket has at most 107 bytes, of which Ray uses 64; a home with a long path is therefore
reached by a short symbolic link in a directory (0700) of its own beside the system's temporary files
(`kodo.node.executors.short_path`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from kodo.node.executors.marked_processes import find_marked
from kodo.node.executors.runner.environment import flow_environment
from kodo.node.executors.short_path import leads_to, make_short_path, remove_short_path
from kodo.p2p.errors import CapacityError, DeadlineError, KodoError, UsageError
from kodo.p2p.net.files import clear_parts, whole_file
from kodo.p2p.net.keystore import write_private

__all__ = [
    "MARK",
    "RayCluster",
    "cluster_lives",
    "driver_environment",
    "find_cluster",
    "listening_sockets",
    "start_cluster",
    "stop_cluster",
]

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0
"""Seconds that `ray start` may take; about 3 are usual."""

STOP_TIMEOUT = 10.0
"""Seconds until processes that do not end by themselves have been killed."""

REMOVE_TIMEOUT = 5.0
"""Seconds more that removing what Ray has written may take."""

REMOVE_BESIDE = 600
"""Seconds for which a process of its own may go on with that."""

_REMOVED = "removed-"
"""How a folder is called that is being removed."""

_REMOVE = """
import shutil, signal, sys
signal.alarm(int(sys.argv[1]))
for path in sys.argv[2:]:
    shutil.rmtree(path, ignore_errors=True)
"""

MIN_OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Ray refuses a smaller object store (`OBJECT_STORE_MINIMUM_MEMORY_BYTES`, 75 MB), with a margin."""

MARK = "KODO_RAY"
"""Environment variable of all of an embedded Ray's processes: its folder. What a flow starts inherits it."""

_RECORD_VERSION = 1
_HEAD = "kodo.node.executors.ray.forking.head"
"""What takes the arguments of `ray`."""

_PARTS = ("gcs_server", "raylet")


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A Ray that was started for one home.

    Attributes:
        address: `127.0.0.1:port` of its head.
        temp_dir: what Ray calls its temporary directory; a link to a folder of the home when its path is too long.
        session_dir: logs, sockets and spilled objects of this start.
        ray: Ray's version.
        python: the interpreter that its workers run.
        processes: `[pid, create time in seconds UTC, name]` of each process started.
    """

    address: str
    temp_dir: str
    session_dir: str
    ray: str
    python: str
    processes: tuple[tuple[int, float, str], ...]


def driver_environment(home: Path) -> dict[str, str]:
    """Return what must be in the environment before Ray is imported, in the driver as in the head."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_folder(home) / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }


def start_cluster(home: Path, *, num_cpus: int | None = None, object_store_bytes: int | None = None) -> RayCluster:
    """Find this home's Ray, or start one; blocks for about 3 s when it has to start.

    Args:
        home: the node's home.
        num_cpus: CPUs that Ray may hand out; None: all.
        object_store_bytes: shared memory for objects; None: Ray's choice (30 % of memory).

    Raises:
        UsageError: a value is out of range, or Ray is not installed.
        CapacityError: Ray ended while starting; says where its logs are. Or the disk takes nothing.
        DeadlineError: it did not start in time.
    """
    if num_cpus is not None and num_cpus < 1:
        raise UsageError(f"an embedded Ray needs at least one CPU, not {num_cpus}")
    if object_store_bytes is not None and object_store_bytes < MIN_OBJECT_STORE_BYTES:
        raise UsageError(
            f"Ray's object store needs at least {MIN_OBJECT_STORE_BYTES} bytes, not {object_store_bytes}"
        )
    try:
        with _locked(home):
            found = _find(home)
            if found is not None:
                return found
            _stop(home, politely=False)
            return _start(home, num_cpus, object_store_bytes)
    except OSError as error:
        raise CapacityError(
            f"Ray cannot keep its files in {home}: {error.strerror}; free disk space, or make the folder writable"
        ) from error


def find_cluster(home: Path) -> RayCluster | None:
    """Return this home's Ray when it is alive, else None."""
    if not _record_path(home).exists():
        return None
    with _locked(home):
        return _find(home)


def cluster_lives(home: Path) -> bool:
    """Return whether the processes without which this home's Ray is none are there; takes less than 1 ms."""
    return _needed_live(_read_record(home).get("processes") or ())


def stop_cluster(home: Path, *, politely: bool = True) -> None:
    """End every process of this home's Ray, workers and what they started included; idempotent, bounded to 15 s.

    Args:
        politely: give them 2 s to end by themselves; a Ray that is broken cannot.
    """
    if not _record_path(home).exists():
        return
    with _locked(home):
        _stop(home, politely=politely)


def listening_sockets(home: Path) -> list[tuple[int, str, str, int]]:
    """List every TCP socket on which this home's Ray listens: `(pid, process name, ip, port)`."""
    found = []
    for process in _tree(home, _read_record(home)):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.append((process.pid, process.name(), connection.laddr.ip, connection.laddr.port))
    return found


def _folder(home: Path) -> Path:
    folder = home / "ray"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _record_path(home: Path) -> Path:
    return home / "ray" / "cluster.json"


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Keep all but one process at a time from starting or stopping this home's Ray."""
    descriptor = os.open(_folder(home) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + START_TIMEOUT + STOP_TIMEOUT
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DeadlineError(
                        f"another process has been starting or stopping Ray in {home} for too long"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _read_record(home: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_path(home).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("version") == _RECORD_VERSION else {}


def _write_record(home: Path, record: Mapping[str, Any]) -> None:
    clear_parts(_folder(home))
    text = json.dumps({"version": _RECORD_VERSION, **record}, indent=1)
    with whole_file(_record_path(home), durable=True) as file:
        file.write(text.encode())


def _sessions(home: Path) -> Path:
    folder = _folder(home) / "sessions"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _start(home: Path, num_cpus: int | None, object_store_bytes: int | None) -> RayCluster:
    folder = _folder(home)
    token = folder / "token"
    if not token.exists() or token.stat().st_size < 32:
        write_private(token, secrets.token_hex(32).encode())
    token.chmod(0o600)
    temp_dir = make_short_path(_sessions(home))
    # Written first, so that a start which is killed half way leaves a trace by which `_stop` finds what it started.
    _write_record(home, {"temp_dir": temp_dir, "processes": []})
    (Path(temp_dir) / "ray_current_cluster").unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        _HEAD,
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        "--port=0",
    ]
    # Worker ports are left to the kernel: two Rays on one machine would fight over Ray's own range.
    command += ["--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=false", "--no-monitor"]
    command += ["--include-log-monitor=false", "--disable-usage-stats", f"--temp-dir={temp_dir}"]
    if num_cpus is not None:
        command.append(f"--num-cpus={num_cpus}")
    if object_store_bytes is not None:
        command.append(f"--object-store-memory={object_store_bytes}")
    log = folder / "start.log"
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=_environment(home),
                timeout=START_TIMEOUT,
                start_new_session=True,
                umask=0o077,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        _stop(home)
        raise DeadlineError(f"Ray did not start within {START_TIMEOUT:g} s; see {log}") from error
    except BaseException:
        _stop(home)
        raise
    try:
        address = (Path(temp_dir) / "ray_current_cluster").read_text().strip()
        session = os.path.join(temp_dir, os.path.basename(os.readlink(os.path.join(temp_dir, "session_latest"))))
    except OSError:
        address = session = ""
    if done.returncode or not address:
        tail = log.read_text(errors="replace").strip().splitlines()[-1:]
        _stop(home)
        raise CapacityError(f"Ray did not start (exit code {done.returncode}): {' '.join(tail)}; see {log}")
    processes = tuple((p.pid, p.create_time(), _part(p)) for p in _heads(temp_dir))
    cluster = RayCluster(address, temp_dir, session, _ray_version(), sys.executable, processes)
    _write_record(home, asdict(cluster))
    return cluster


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def _environment(home: Path) -> dict[str, str]:
    """The head's environment, which every worker inherits: ours, less what steers Ray or sends anything elsewhere."""
    return {
        **flow_environment(os.environ),
        **driver_environment(home),
        MARK: str(_folder(home)),
        "PYTHONUNBUFFERED": "1",
        # Runners are warmed by the node, with an environment that no prestarted worker has.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # Task events would keep error messages, that is a user's data, in the head.
        "RAY_task_events_report_interval_ms": "0",
        "RAY_enable_metrics_collection": "0",
        # What a flow has started ends with its worker.
        "RAY_process_group_cleanup_enabled": "1",
    }


def _find(home: Path) -> RayCluster | None:
    record = _read_record(home)
    try:
        processes = tuple((int(pid), float(created), str(name)) for pid, created, name in record["processes"])
        cluster = RayCluster(
            record["address"], record["temp_dir"], record["session_dir"], record["ray"], record["python"], processes
        )
    except (KeyError, TypeError, ValueError):
        return None
    if not _needed_live(processes):
        return None
    # A cleaner of temporary files may have taken the link away; Ray's processes still hold the path.
    if not leads_to(cluster.temp_dir, _sessions(home)):
        logger.error("%s is not this node's any more: Ray is started anew, and what ran is over", cluster.temp_dir)
        return None
    host, _, port = cluster.address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2.0).close()
    except (OSError, ValueError):
        return None
    if cluster.ray != _ray_version():
        raise KodoError(
            f"the Ray that runs in {home} has version {cluster.ray}, this node has {_ray_version()}: let its runs "
            "end, then stop it with the version that started it"
        )
    return cluster


def _needed_live(processes: Iterable[Sequence[Any]]) -> bool:
    needed = [entry for entry in processes if entry[2] in ("gcs_server", "raylet")]
    return len(needed) >= 2 and all(_alive(pid, created) for pid, created, _ in needed)


def _alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _part(process: psutil.Process) -> str:
    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return ""
    return next((part for part in _PARTS if any(os.path.basename(word) == part for word in words)), "")


def _heads(temp_dir: str) -> list[psutil.Process]:
    """Find Ray's own processes by what they were told of this temporary directory."""
    mine = os.getuid()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == mine and _part(process) and any(temp_dir in word for word in process.cmdline()):
                found.append(process)
    return found


def _tree(home: Path, record: Mapping[str, Any]) -> list[psutil.Process]:
    """All processes of the recorded Ray and their descendants."""
    heads: list[psutil.Process] = []
    for pid, created, _ in record.get("processes") or ():
        if _alive(pid, created):
            with contextlib.suppress(psutil.Error):
                heads.append(psutil.Process(pid))
    if record.get("temp_dir"):
        heads += _heads(str(record["temp_dir"]))
    # Workers and what they started have lost their parent when the raylet was killed.
    heads += find_marked(MARK, str(_folder(home)))
    found: dict[int, psutil.Process] = {}
    for head in heads:
        found[head.pid] = head
        with contextlib.suppress(psutil.Error):
            found.update((child.pid, child) for child in head.children(recursive=True))
    found.pop(os.getpid(), None)
    return list(found.values())


def _stop(home: Path, *, politely: bool = True) -> None:
    record = _read_record(home)
    deadline = time.monotonic() + STOP_TIMEOUT
    alive = _tree(home, record)
    if politely:
        # The raylet takes its workers along.
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(alive, timeout=2.0)
        alive = list({*alive, *_tree(home, record)})
    while alive and time.monotonic() < deadline:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, alive = psutil.wait_procs(alive, timeout=1.0)
        # What they had started meanwhile.
        alive = list({*alive, *_tree(home, record)})
    if alive:
        raise DeadlineError(f"these processes of Ray do not end: {', '.join(str(process.pid) for process in alive)}")
    temp_dir = record.get("temp_dir")
    if temp_dir:
        remove_short_path(temp_dir, _folder(home) / "sessions")
    _record_path(home).unlink(missing_ok=True)
    _remove_sessions(_folder(home), deadline + REMOVE_TIMEOUT if politely else 0.0)


def _remove_sessions(folder: Path, deadline: float) -> None:
    """Remove what Ray has written; from the deadline on a process goes on with that beside.

    The environments that it has made for flows are tens of thousands of files, some of other accounts' making.
    """
    with contextlib.suppress(OSError):
        (folder / "sessions").rename(folder / f"{_REMOVED}{secrets.token_hex(8)}")
    removed = [str(path) for path in folder.glob(f"{_REMOVED}*")]
    if not removed:
        return
    words = [sys.executable, "-I", "-S", "-c", _REMOVE, str(REMOVE_BESIDE), *removed]
    try:
        removing = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        removing.wait(max(deadline - time.monotonic(), 0.5))
    except subprocess.TimeoutExpired:
        logger.info("what Ray has written in %s is being removed by the process %d", folder, removing.pid)
        threading.Thread(target=removing.wait, daemon=True).start()  # somebody has to collect it
    except OSError as error:
        logger.warning("what Ray has written in %s stays there: %s", folder, error)
