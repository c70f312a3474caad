"""A network of its own whose way out leads to a recorder only: what leaves the machine is seen. It takes root."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["WatchedPlace", "watched_place"]

_ALL = 0x0003
_IPV4, _IPV6 = 0x0800, 0x86DD
_PROTOCOLS = {6: "tcp", 17: "udp"}


@dataclass
class WatchedPlace:
    """`prefix` are the words before a command that runs there; `left` what went out, as `udp 192.0.2.1:53`."""

    prefix: list[str]
    left: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watched_place() -> Iterator[WatchedPlace | None]:
    """Make such a place; None where that is not possible."""
    name = f"kodo{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "out", "netns", name],
        ["ip", "link", "set", name, "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
        [*inside, "ip", "link", "set", "out", "up"],
        [*inside, "ip", "addr", "add", "10.213.7.2/24", "dev", "out"],
        [*inside, "ip", "route", "add", "default", "via", "10.213.7.1"],
        # Nobody is there: without a neighbour nothing would be sent, and so nothing be seen.
        [*inside, "ip", "neigh", "add", "10.213.7.1", "lladdr", "02:00:00:00:00:01", "dev", "out"],
    ]
    try:
        try:
            made = all(subprocess.run(step, capture_output=True, check=False).returncode == 0 for step in steps)
        except OSError:
            made = False
        if not made:
            yield None
            return
        place = WatchedPlace(inside)
        with _recording(name, place):
            yield place
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def _recording(device: str, place: WatchedPlace) -> Iterator[None]:
    over = threading.Event()
    # With a protocol from the beginning it would hear all devices until it is bound to one.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((device, _ALL))
        wire.settimeout(0.1)

        def listen() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError, OSError):
                    frame, (_, _, direction, *_) = wire.recvfrom(65536)
                    # What this machine's other programs say to all its networks goes the other way.
                    seen = _destination(frame) if direction != socket.PACKET_OUTGOING else None
                    if seen is not None:
                        place.left.append(seen)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)


def _destination(frame: bytes) -> str | None:
    """Give where a frame goes; None: one that the kernel sends by itself to find its neighbours."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    packet = frame[14:]
    if kind == _IPV4:
        protocol, to, rest = (
            packet[9],
            socket.inet_ntop(socket.AF_INET, packet[16:20]),
            packet[(packet[0] & 15) * 4 :],
        )
    elif kind == _IPV6:
        protocol, to, rest = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40]), packet[40:]
    else:
        return None
    if protocol not in _PROTOCOLS:
        return None
    return f"{_PROTOCOLS[protocol]} {to}:{struct.unpack_from('!H', rest, 2)[0]}"
