"""Recorders between two parties on loopback, in threads: they pass everything on and keep a copy."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

WAIT_S = 0.1


class Recorder:
    """What a recorder has heard: `port` is where it listens, `heard` what passed, both ways."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard = bytearray()
        self.over = False


@contextlib.contextmanager
def udp_recorder(target: tuple[str, int]) -> Iterator[Recorder]:
    """Record the datagrams between everybody and `target`."""
    front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    front.bind(("127.0.0.1", 0))
    recorder = Recorder(front.getsockname()[1])
    backs: dict[tuple[str, int], socket.socket] = {}
    peers: dict[socket.socket, tuple[str, int]] = {}

    def pump() -> None:
        while not recorder.over:
            for ready in select.select([front, *peers], [], [], WAIT_S)[0]:
                with contextlib.suppress(OSError):
                    data, source = ready.recvfrom(65536)
                    recorder.heard += data
                    if ready is not front:
                        front.sendto(data, peers[ready])
                        continue
                    if source not in backs:
                        back = backs[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        back.connect(target)
                        peers[back] = source
                    backs[source].send(data)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.over = True
        thread.join()
        for each in (front, *peers):
            each.close()


@contextlib.contextmanager
def tcp_recorder(target: tuple[str, int]) -> Iterator[Recorder]:
    """Record the connections to `target`."""
    listener = socket.create_server(("127.0.0.1", 0))
    recorder = Recorder(listener.getsockname()[1])

    def pump() -> None:
        others: dict[socket.socket, socket.socket] = {}
        while not recorder.over:
            for ready in select.select([listener, *others], [], [], WAIT_S)[0]:
                if ready is listener:
                    near, _ = listener.accept()
                    far = socket.create_connection(target)
                    others[near], others[far] = far, near
                elif ready in others:
                    data = b""
                    with contextlib.suppress(OSError):
                        data = ready.recv(65536)
                        recorder.heard += data
                        others[ready].sendall(data)
                    if not data:
                        for each in (others.pop(ready), ready):
                            others.pop(each, None)
                            each.close()
        for each in others:
            each.close()

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.over = True
        thread.join()
        listener.close()
