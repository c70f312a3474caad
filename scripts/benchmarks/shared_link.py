"""A bottleneck that whole packets pass: two network namespaces, a TUN device in each, and a token bucket between.

Kernel TCP and a session share it packet by packet, whatever they are. Needs Linux, root and `ip`.

    python -m benchmarks.shared_link run LEFT RIGHT RATE DELAY QUEUE     the bucket, until its stdin ends
    python -m benchmarks.shared_link sink PORT                           a TCP sink that says what it has at each line
    python -m benchmarks.shared_link source HOST PORT                    a CUBIC source
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import os
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

from benchmarks.measure import Series

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
NETWORK = "10.213.7"
MTU = 1500


def series(values: Sequence[float]) -> Series:
    return Series(tuple(values))


class SharedLink:
    """The link as a context; `left` and `right` are what stands before a command to run it at that end.

    Raises:
        RuntimeError: this machine cannot make one.
    """

    def __init__(self, *, rate: float, delay_s: float, queue: int) -> None:
        self._names = [f"kodo-{os.getpid()}-{side}" for side in "lr"]
        self._options = [str(rate), str(delay_s), str(queue)]
        self._process: asyncio.subprocess.Process | None = None
        self._port = 5300
        self.left, self.right = (["ip", "netns", "exec", name] for name in self._names)

    async def __aenter__(self) -> Self:
        if not _possible():
            raise RuntimeError("a link that TCP shares needs Linux, root, /dev/net/tun and ip")
        try:
            for name in self._names:
                _ip("netns", "add", name)
                _ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
            self._process = await asyncio.create_subprocess_exec(
                *_module("run", *self._names, *self._options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[1],
            )
            assert self._process.stdout is not None
            if not await asyncio.wait_for(self._process.stdout.readline(), 20):
                raise RuntimeError("the link's process ended")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        for name in self._names:
            with contextlib.suppress(RuntimeError):
                _ip("netns", "del", name)

    @contextlib.asynccontextmanager
    async def tcp(self) -> AsyncIterator[TcpFlow]:
        """Run a TCP that sends from right to left as fast as it can."""
        self._port += 1
        port = str(self._port)
        sink = await asyncio.create_subprocess_exec(
            *self.left,
            *_module("sink", port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        flow = TcpFlow(sink)
        await flow.taken()
        source = await asyncio.create_subprocess_exec(
            *self.right, *_module("source", f"{NETWORK}.1", port), cwd=Path(__file__).parents[1]
        )
        try:
            yield flow
        finally:
            source.kill()
            await source.wait()
            assert sink.stdin is not None
            sink.stdin.close()
            await sink.wait()


class TcpFlow:
    """One TCP; made by `SharedLink.tcp`."""

    def __init__(self, sink: asyncio.subprocess.Process) -> None:
        self._sink = sink

    async def taken(self) -> int:
        """Bytes that have arrived."""
        assert self._sink.stdin is not None
        assert self._sink.stdout is not None
        self._sink.stdin.write(b"\n")
        return int(await asyncio.wait_for(self._sink.stdout.readline(), 20))


def _possible() -> bool:
    return os.geteuid() == 0 and Path("/dev/net/tun").exists() and shutil.which("ip") is not None


def _module(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.shared_link", *words]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def run(left: str, right: str, rate: float, delay: float, queue: int) -> None:
    """Pass packets between the two until stdin ends."""
    ends = []
    for number, name in enumerate((left, right), 1):
        device = f"kodo{number}"
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        _ip("link", "set", device, "netns", name)
        within = ["netns", "exec", name, "ip"]
        _ip(*within, "addr", "add", f"{NETWORK}.{number}/24", "dev", device)
        _ip(*within, "link", "set", device, "up", "mtu", str(MTU), "txqueuelen", "10000")
        ends.append(fd)
    selector = selectors.DefaultSelector()
    for fd in ends:
        selector.register(fd, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    flying: dict[int, collections.deque[tuple[float, bytes]]] = {fd: collections.deque() for fd in ends}
    free_at = dict.fromkeys(ends, 0.0)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while True:
        now = time.monotonic()
        due = [waiting[0][0] for waiting in flying.values() if waiting]
        for key, _ in selector.select(max(0.0, min(due) - now) if due else None):
            if key.fileobj is sys.stdin:
                return
            source = key.fd
            now = time.monotonic()
            with contextlib.suppress(BlockingIOError):
                for _ in range(64):
                    packet = os.read(source, 65536)
                    begin = max(now, free_at[source])
                    if (begin - now) * rate <= queue:
                        free_at[source] = begin + len(packet) / rate
                        flying[source].append((free_at[source] + delay, packet))
        now = time.monotonic()
        for source, waiting in flying.items():
            while waiting and waiting[0][0] <= now:
                _, packet = waiting.popleft()
                with contextlib.suppress(OSError):
                    os.write(other[source], packet)


def sink(port: int) -> None:
    """Take what comes; say how much at each line of stdin."""
    listener = socket.create_server(("0.0.0.0", port))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    taken = 0
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            elif not isinstance(key.fileobj, socket.socket):
                if not sys.stdin.readline():
                    return
                print(taken, flush=True)
            else:
                data = key.fileobj.recv(1 << 18)
                taken += len(data)
                if not data:
                    selector.unregister(key.fileobj)


def source(host: str, port: int) -> None:
    """Send until killed."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    sock.connect((host, port))
    data = bytes(1 << 18)
    while True:
        sock.sendall(data)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", left, right, rate, delay, queue]:
            run(left, right, float(rate), float(delay), int(queue))
        case ["sink", port]:
            sink(int(port))
        case ["source", host, port]:
            source(host, int(port))
