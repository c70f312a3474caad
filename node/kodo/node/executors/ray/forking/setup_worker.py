"""What Ray's raylet runs for each worker, in the place of its own script of this name: asks the fork server for it.

Ray's own imports all of Ray only to start another process that does so again. This one imports nothing that the
interpreter does not have, hands its arguments, environment and descriptors to the server, and ends once the worker
says that it lives. The first one makes the server's socket and starts it; the rest wait in the socket's queue. A
server that died or is outdated is replaced; when it declines, this process becomes what Ray would have started.
"""

from __future__ import annotations

import _socket  # `socket` takes longer than all else that is done here
import fcntl
import os
import sys

__all__ = ["DECLINED", "FORKED", "MARK", "OUTDATED", "PLACE", "ask", "fields", "main", "unfielded"]

MARK = "KODO_RUNNER"
"""Whose worker it is, in the environment of each; see `kodo.node.executors.ray.forking.server`."""

PLACE = "-" * 256
"""What `MARK` is in the server: room for a name."""

FORKED = b"1"
"""What a worker says when it lives."""

DECLINED = b"0"
"""What the server says when it forks no such worker."""

OUTDATED = b"2"
"""What the server says when another one is needed: it has ended by then."""

_ATTEMPTS = 2

_BACKLOG = 256


def fields(values: list[bytes]) -> bytes:
    """Return texts as one: each after its length, 4 bytes."""
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def unfielded(data: bytes) -> list[bytes]:
    """Return the texts that `fields` made one of."""
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    return found


def ask(path: str, words: list[str]) -> bytes:
    """Make the server at `path` fork a worker with the arguments `words`; return its answer, none when it died.

    Raises:
        OSError: there is no server to ask.
    """
    with open("/proc/self/oom_score_adj", "rb") as file:
        weight = file.read().strip()  # the raylet gave it to this process
    environment = [name + b"=" + value for name, value in os.environb.items()]
    asked = fields(
        [weight, os.fsencode(os.getcwd()), fields([os.fsencode(word) for word in words]), fields(environment)]
    )
    connection = _connect(path)
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    message = fields([asked])
    sent = connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    if sent < len(message):  # to send nothing would fail once the answer is there and the other end closed
        connection.sendall(message[sent:])
    return connection.recv(1)


def _connect(path: str) -> _socket.socket:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection.connect(path)  # another one has started it meanwhile
            except OSError:
                _start(path)
                connection.connect(path)
        finally:
            os.close(lock)
    return connection


def _start(path: str) -> None:
    """Start a server on a socket that is there already: nobody has to wait until it is."""
    if os.path.lexists(path):
        os.unlink(path)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(_BACKLOG)
    if os.fork():
        listener.close()
        return
    try:
        _become_server(listener, path)
    finally:
        # Else who called this would go on in two processes, and each would become the worker in the end.
        os._exit(1)


def _become_server(listener: _socket.socket, path: str) -> None:
    os.setsid()
    logs = os.path.join(os.path.dirname(os.path.dirname(path)), "logs", "fork_server.err")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(os.open(logs, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
    os.dup2(listener.fileno(), 3)
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    environment[MARK] = PLACE  # the last one: a reader may stop where a shorter name leaves nothing
    os.execve(sys.executable, [sys.executable, "-m", "kodo.node.executors.ray.forking.server"], environment)


def _forked(path: str, words: list[str]) -> bool:
    for _ in range(_ATTEMPTS):
        try:
            answer = ask(path, words)
        except OSError:
            continue
        if answer in (FORKED, DECLINED):
            return answer == FORKED
    return False


def main() -> None:
    """Get the worker forked, or become it."""
    words = sys.argv[1:]
    raylet = next((word.partition("=")[2] for word in words if word.startswith("--raylet-name=")), "")
    if raylet and _forked(raylet + ".fork", words):
        os._exit(0)
    worker = next(word for word in words if word.endswith("default_worker.py"))
    own = os.path.join(os.path.dirname(worker), "setup_worker.py")
    os.execv(sys.executable, [sys.executable, own, *words])


if __name__ == "__main__":
    main()
