"""The fork server: has imported what every runner needs, and forks one for whoever asks.

It is one process with one thread, and does nothing else: no user code, no connection to Ray, no random number that
its children would share. What it forks is a process of its own as Ray starts it, with the arguments, environment,
working directory, process group and descriptors that it would have had; only the time to get there differs, and the
pages that are shared until they are written, and its parent: a keeper (`kodo.node.executors.keeper`), which ends the
daemons that a runner leaves. All children have the same seed of `hash`, and the same addresses.

One server belongs to one raylet, one job of Ray's (a run of the node) and one version of kodo: it ends with the
raylet, or when a worker of a later job or another version is asked for. Whoever asks then starts another.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kodo.node.executors.keeper import keep_next
from kodo.node.executors.niceness import step_session_back
from kodo.node.executors.ray.forking.setup_worker import DECLINED, FORKED, MARK, OUTDATED, PLACE, unfielded
from kodo.node.executors.runner.service import kodo_version, warm_up
from kodo.node.executors.runner.telemetry import TELEMETRY_OFF

__all__ = ["DeclinedError", "OutdatedError", "Request", "check", "main", "read_request"]

LISTENER = 3
"""The descriptor of the socket that the server was started with."""

MAX_REQUEST_BYTES = 1 << 20
REQUEST_TIMEOUT = 5.0
"""Seconds for a request to arrive: whoever asks has it ready."""

VERSION = "KODO_VERSION"
"""The variable that tells which version a worker is for."""

WORKER = "ray._private.workers.default_worker"

JOB = "RAY_JOB_ID"
"""The variable that tells a worker's job, a number as 4 bytes, the lowest first; Ray reads it when it is imported."""

_OWN = {
    "RAY_USAGE_STATS_ENABLED",
    "SPT_NOENV",
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR",
    *TELEMETRY_OFF,
}
"""What may differ from worker to worker, besides `KODO_*`: nothing that was imported here has read it."""


class DeclinedError(Exception):
    """A worker needs a process that starts afresh."""


class OutdatedError(DeclinedError):
    """What has been imported here is of an earlier job, or another version: no worker will come from it any more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One worker to be.

    Attributes:
        words: its arguments, the path of its script first.
        environment: that of whoever asked.
        variables: what its runtime environment changes in that.
        folder: where it works.
        weight: its `oom_score_adj`.
    """

    words: list[str]
    environment: dict[str, str]
    variables: dict[str, str]
    folder: str
    weight: bytes


def main() -> None:
    """Serve until there is no more need; in a child, run the worker."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    address = library.getenv(MARK.encode())
    _preload()
    step_session_back()  # `setup_worker` has made it the leader of one
    request = _serve()
    if request is not None:
        _become(request, address)
        runpy.run_path(request.words[0], run_name="__main__")


def read_request(data: bytes) -> Request:
    """Read what a `setup_worker` asks.

    Raises:
        ValueError: it cannot be read.
        DeclinedError: the worker's runtime environment is more than variables.
    """
    weight, folder, asked, given = unfielded(data)
    words = []
    context: dict[str, Any] = {}
    for word in map(os.fsdecode, unfielded(asked)):
        name, _, value = word.partition("=")
        if name == "--serialized-runtime-env-context":
            context = dict(json.loads(value))
        elif name != "--language":
            words.append(word)
    variables = dict(context.get("env_vars") or {})
    if not all(isinstance(text, str) for text in (*variables, *variables.values())):
        raise ValueError("a variable is not text")
    if context.get("command_prefix") or context.get("override_worker_entrypoint"):
        raise DeclinedError("it has a command of its own")
    if context.get("py_executable", sys.executable) != sys.executable:
        raise DeclinedError("it has a Python of its own")
    environment = dict(os.fsdecode(variable).split("=", 1) for variable in unfielded(given))
    return Request(words, environment, variables, os.fsdecode(folder), weight)


def check(request: Request, worker: str, own: Mapping[str, str]) -> None:
    """See whether a process with the environment `own` may become what is asked for.

    Raises:
        DeclinedError: its script is not `worker`, or a variable differs that is read when a process starts.
        OutdatedError: this process is of another version, or of an earlier job.
    """
    if request.variables.get(VERSION, kodo_version()) != kodo_version():
        raise OutdatedError("it has another version")
    if _job(request.environment) > _job(own):
        raise OutdatedError("it belongs to a later job")
    if request.words[:1] != [worker]:
        raise DeclinedError("it runs another script")
    wanted = {**request.environment, **request.variables}
    for name in own.keys() | wanted.keys():
        if own.get(name) != wanted.get(name) and not name.startswith("KODO_") and name not in _OWN:
            raise DeclinedError(f"its {name} is its own")


def _job(environment: Mapping[str, str]) -> int:
    return int.from_bytes(bytes.fromhex(environment.get(JOB, "")), "little")


def _preload() -> None:
    """Import what a runner has imported when it is ready."""
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        raise ImportError("Ray is not installed")
    # As when it is run as a script, before Ray puts its own in front.
    sys.path[0] = os.path.join(os.path.dirname(found.origin), "_private", "workers")
    importlib.import_module(WORKER)
    importlib.import_module("kodo.node.executors.ray.actor")
    warm_up()
    gc.collect()
    gc.freeze()  # what is never looked at stays shared


def _serve() -> Request | None:
    """Fork for whoever asks. Gives None when there is no more need; in a child, what it is to be."""
    listener = socket.socket(fileno=LISTENER)
    raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
    worker = str(sys.modules[WORKER].__file__)
    own = dict(os.environ)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        ready, _, _ = select.select([listener.fileno(), raylet], [], [])
        if raylet in ready:
            return None
        with listener.accept()[0] as connection, contextlib.ExitStack() as stack:
            try:
                data, descriptors = _receive(connection, stack)
                request = read_request(data)
                check(request, worker, own)
                child = os.fork() == 0
            except OutdatedError:
                listener.close()  # whoever asks from now on starts another
                with contextlib.suppress(OSError):
                    connection.send(OUTDATED)
                return None
            except (OSError, ValueError, TypeError, DeclinedError):
                with contextlib.suppress(OSError):
                    connection.send(DECLINED)
                continue
            # What fails in a child ends it: nobody but the one who asked may be told, and not that it was declined.
            if child:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os.close(raylet)
                keep_next(lambda pid: None)
                for number, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, number)
                os.setpgid(0, 0)  # what it starts ends with it
                connection.send(FORKED)
                return request


def _reap(number: int, frame: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _receive(connection: socket.socket, stack: contextlib.ExitStack) -> tuple[bytes, list[int]]:
    """Read a request and its three descriptors, which `stack` closes.

    Raises:
        OSError, ValueError: it is not a request.
    """
    connection.settimeout(REQUEST_TIMEOUT)
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    for descriptor in descriptors:
        stack.callback(os.close, descriptor)
    size = 4 + int.from_bytes(data[:4], "big")
    if len(data) < 4 or size > MAX_REQUEST_BYTES or len(descriptors) != 3:
        raise ValueError("no request")
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ValueError("half a request")
        data += more
    return data[4:], descriptors


def _become(request: Request, address: int | None) -> None:
    """Set up in this process, just forked, what it would have if it had been started.

    Args:
        address: where the process's environment, as others see it, has room for its `MARK`.
    """
    from ray._private.utils import update_envs

    os.chdir(request.folder)
    os.environ.clear()
    # The folder as the shell says it by which Ray starts a worker.
    os.environ.update({**request.environment, "PWD": request.folder})
    update_envs(request.variables)
    mark = os.environ.get(MARK, "").encode()
    if address is not None and len(mark) < len(PLACE):
        ctypes.memmove(address, mark.ljust(len(PLACE), b"\0"), len(PLACE))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(request.weight)
    tempfile.tempdir = None
    time.tzset()
    importlib.import_module("ray._raylet").Config.initialize("")  # it has read the environment of the server
    sys.argv = list(request.words)


if __name__ == "__main__":
    main()
