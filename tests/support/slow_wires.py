"""Wires between hosts of a lab on which packets take time: TUN devices, and this process between them.

python -m tests.support.slow_wires SECONDS NAMESPACE DEVICE NAMESPACE DEVICE: until its stdin ends. It says `ready`.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKETS = 20_000
"""Under way in one direction; what is more is dropped."""


def end(namespace: str, name: str, number: int) -> int:
    """Make one end; return its file descriptor."""
    device = f"kodo{os.getpid()}t{number}"
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    for words in (
        ["link", "set", "dev", device, "netns", namespace, "name", name],
        ["-n", namespace, "link", "set", "dev", name, "up", "mtu", "1500", "txqueuelen", "10000"],
    ):
        subprocess.run(["ip", *words], check=True)
    return fd


def run(delay_s: float, ends: list[tuple[str, str]]) -> None:
    """Pass packets, each as late as the others, until stdin ends."""
    one, other = (end(namespace, name, number) for number, (namespace, name) in enumerate(ends))
    across = {one: other, other: one}
    flying: dict[int, collections.deque[tuple[float, bytes]]] = {fd: collections.deque() for fd in across}
    selector = selectors.DefaultSelector()
    for fd in (one, other, sys.stdin.fileno()):
        selector.register(fd, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        due = [waiting[0][0] for waiting in flying.values() if waiting]
        for key, _ in selector.select(max(0.0, min(due) - time.monotonic()) if due else None):
            if key.fd not in across:
                return
            with contextlib.suppress(BlockingIOError):
                while len(flying[key.fd]) < PACKETS:
                    flying[key.fd].append((time.monotonic() + delay_s, os.read(key.fd, 65536)))
        for fd, waiting in flying.items():
            while waiting and waiting[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):
                    os.write(across[fd], waiting.popleft()[1])


if __name__ == "__main__":
    run(float(sys.argv[1]), [(sys.argv[2], sys.argv[3]), (sys.argv[4], sys.argv[5])])
