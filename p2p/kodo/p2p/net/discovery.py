"""Peers on the local network, by DNS-SD (RFC 6763) over mDNS; the only module that imports zeroconf.

A node is one instance of `_kodo._udp.local.` whose name is its peer id, for two nodes may claim one display name. Its
TXT record says `v=1`, `name=`, `flows=<count>` and `dnsaddr=<multiaddr>` once per address, as libp2p's mDNS does.
What is heard here is a hint: only the handshake proves a peer id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from zeroconf import (
    BadTypeInNameException,
    DNSQuestionType,
    IPVersion,
    NonUniqueNameException,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import NetworkError
from kodo.p2p.net.interfaces import local_addresses, multicast_interfaces, on_networks_changed

__all__ = ["SERVICE_TYPE", "Advertisement", "Advertiser", "Browser", "browse", "find"]

logger = logging.getLogger(__name__)

SERVICE_TYPE = "_kodo._udp.local."
MAX_TEXT_BYTES = 255
MAX_ADDRESSES = 16
MAX_NODES = 4096
RESOLVE_MS = 3000
STALE_SECONDS = 4.0
"""How long nodes that were found on other networks are listed while they are looked for on those of now."""


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a node says of itself on the local network.

    Attributes:
        peer_id: its peer id, unproved.
        name: the display name that it claims.
        flows: how many flows it offers.
        addresses: where to dial it; each names the same peer id.
    """

    peer_id: str
    name: str
    flows: int
    addresses: tuple[Multiaddr, ...]

    def to_text(self) -> bytes:
        """Encode as a DNS TXT record: a length byte before each `key=value` (RFC 6763, 6)."""
        entries = [b"v=1", b"name=" + self.name.encode()[: MAX_TEXT_BYTES - 5], f"flows={self.flows}".encode()]
        entries += [f"dnsaddr={address}".encode() for address in self.addresses[:MAX_ADDRESSES]]
        return b"".join(bytes([len(entry)]) + entry for entry in entries if len(entry) <= MAX_TEXT_BYTES)

    @classmethod
    def from_text(cls, peer_id: str, text: bytes) -> Advertisement:
        """Read a TXT record of the instance `peer_id`; what is not understood is left out.

        Raises:
            ValueError: when it is not a kodo node of version 1, or names no usable address.
        """
        peer = PeerId.parse(peer_id)
        first: dict[str, str] = {}
        addresses: list[Multiaddr] = []
        for entry in _entries(text):
            key, _, value = entry.partition("=")
            key = key.lower()
            if key == "dnsaddr":
                with contextlib.suppress(ValueError):
                    address = Multiaddr.parse(value)
                    if address.peer_id == peer and len(addresses) < MAX_ADDRESSES:
                        addresses.append(address)
            else:
                first.setdefault(key, value)
        if first.get("v") != "1" or not addresses:
            raise ValueError(f"{peer_id} announces no version or address that is known here")
        count = first.get("flows", "0")
        return cls(peer_id, first.get("name", ""), int(count) if count.isdecimal() else 0, tuple(addresses))


def _entries(text: bytes) -> Iterator[str]:
    # python-zeroconf's own `properties` keeps the first of several equal keys only.
    position = 0
    while position < len(text):
        length = text[position]
        entry = text[position + 1 : position + 1 + length]
        position += 1 + length
        with contextlib.suppress(UnicodeDecodeError):
            yield entry.decode()


def _open() -> AsyncZeroconf:
    for chosen, version in ((multicast_interfaces(), IPVersion.All), (local_addresses(4), IPVersion.V4Only)):
        with contextlib.suppress(OSError):
            return AsyncZeroconf(interfaces=chosen, ip_version=version)
    raise NetworkError("multicast DNS cannot be used on this machine: no network interface supports it")


async def _follow_networks(zeroconf: AsyncZeroconf) -> None:
    """Move to the networks that this machine is in now.

    First to loopback alone: an interface that was made anew may have its old address, and is in no multicast group.
    """
    for chosen in (["127.0.0.1"], multicast_interfaces()):
        await zeroconf.async_update_interfaces(chosen, IPVersion.All)


class _Networks:
    """Has work done, one at a time, after each change of this machine's networks, until it is closed."""

    def __init__(self, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._changed = asyncio.Event()
        self._forget = on_networks_changed(self._changed.set)
        self._task = asyncio.create_task(self._run(follow))

    async def _run(self, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await follow()
            except (OSError, NetworkError) as error:
                logger.warning("the local network has changed and cannot be used: %s", error)
            except Exception:
                logger.exception("the local network has changed, which was not taken note of")

    async def aclose(self) -> None:
        self._forget()
        self._task.cancel()
        await asyncio.wait([self._task])


class Advertiser:
    """Announces a node while it is open; `async with`. Announces anew when the machine's addresses change.

    Args:
        current: gives the advertisement as it is now; called at start, on `refresh`, and when interfaces change.
    """

    def __init__(self, current: Callable[[], Advertisement]) -> None:
        self._current = current
        self._zeroconf: AsyncZeroconf | None = None
        self._info: ServiceInfo | None = None
        self._networks: _Networks | None = None

    async def __aenter__(self) -> Self:
        self._zeroconf = _open()
        try:
            self._info = self._make_info()
            # Peer ids are unique, so the probing of RFC 6762, 8.1 (0.75 s) would only delay.
            await (await self._zeroconf.async_register_service(self._info, cooperating_responders=True))
        except (NonUniqueNameException, BadTypeInNameException, OSError) as error:
            await self._zeroconf.async_close()
            raise NetworkError(f"cannot announce on the local network: {error}") from error
        self._networks = _Networks(self._follow)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._networks is not None:
            await self._networks.aclose()
        if self._zeroconf is not None:
            try:
                async with asyncio.timeout(3):
                    if self._info is not None:
                        await (await self._zeroconf.async_unregister_service(self._info))
            except TimeoutError:
                logger.debug("the goodbye on the local network took too long")
            finally:
                await self._zeroconf.async_close()
                self._zeroconf = None

    async def refresh(self) -> None:
        """Announce what `current` gives now, if it has changed."""
        info = self._make_info()
        if self._zeroconf is not None and (self._info is None or info.text != self._info.text):
            self._info = info
            await (await self._zeroconf.async_update_service(info))

    def _make_info(self) -> ServiceInfo:
        advertisement = self._current()
        hosts = list(dict.fromkeys(a.host for a in advertisement.addresses if a.family != "dns4"))
        return ServiceInfo(
            SERVICE_TYPE,
            f"{advertisement.peer_id}.{SERVICE_TYPE}",
            port=advertisement.addresses[0].port if advertisement.addresses else 0,
            properties=advertisement.to_text(),
            server=f"{advertisement.peer_id.lower()}.local.",
            parsed_addresses=hosts,
        )

    async def _follow(self) -> None:
        await self.refresh()
        if self._zeroconf is not None:
            await _follow_networks(self._zeroconf)


class Browser:
    """Listens for nodes while it is open; `async with`."""

    def __init__(self) -> None:
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._nodes: dict[str, Advertisement] = {}
        self._heard: set[str] = set()
        """Who was heard since the networks changed."""
        self._changed = asyncio.Condition()
        self._networks: _Networks | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._zeroconf = _open()
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        self._networks = _Networks(self._follow)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._networks is not None:
            await self._networks.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()

    def ask_for(self, peer_id: str) -> None:
        """Ask the one node that has this peer id, and do not wait until it is listed with others.

        The question goes out at once, where one to everybody is put off at random (RFC 6762, 5.2).
        """
        if self._zeroconf is not None and peer_id not in self._nodes:
            # By multicast: what is sent back to the one port of mDNS reaches any of the processes that share it.
            name, how = f"{peer_id}.{SERVICE_TYPE}", DNSQuestionType.QM
            self._start(self._resolve(self._zeroconf.zeroconf, SERVICE_TYPE, name, peer_id, how))

    def nodes(self) -> list[Advertisement]:
        """Return the nodes that are known now."""
        return list(self._nodes.values())

    async def changes(self) -> AsyncIterator[list[Advertisement]]:
        """Yield the nodes now and after each change, for ever; cancelling is safe."""
        while True:
            nodes = self.nodes()
            yield nodes
            async with self._changed:
                while self.nodes() == nodes:
                    await self._changed.wait()

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        peer_id = name.removesuffix(f".{SERVICE_TYPE}")
        self._start(
            self._forget(peer_id)
            if state_change is ServiceStateChange.Removed
            else self._resolve(zeroconf, service_type, name, peer_id)
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        """Ask on the networks of now; who is in none of them is listed no longer."""
        stale, self._heard = set(self._nodes), set()
        before, browser = self._zeroconf, self._browser
        # Another one altogether: this one's cache tells of nodes of other networks.
        self._zeroconf = _open()
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        self._start(self._forget_stale(stale))
        if browser is not None:
            await browser.async_cancel()
        if before is not None:
            await before.async_close()

    async def _forget_stale(self, stale: set[str]) -> None:
        await asyncio.sleep(STALE_SECONDS)
        for peer_id in stale - self._heard:
            await self._forget(peer_id)

    async def _forget(self, peer_id: str) -> None:
        if self._nodes.pop(peer_id, None) is not None:
            async with self._changed:
                self._changed.notify_all()

    async def _resolve(
        self, zeroconf: Zeroconf, service_type: str, name: str, peer_id: str, how: DNSQuestionType | None = None
    ) -> None:
        info = AsyncServiceInfo(service_type, name)
        if not await info.async_request(zeroconf, RESOLVE_MS, how) or info.text is None:
            return
        try:
            node = Advertisement.from_text(peer_id, info.text)
        except ValueError as error:
            logger.debug("left out of what the local network says: %s", error)
            return
        if len(self._nodes) < MAX_NODES or peer_id in self._nodes:
            self._heard.add(peer_id)
            self._nodes[peer_id] = node
            async with self._changed:
                self._changed.notify_all()


async def browse(seconds: float) -> list[Advertisement]:
    """Listen for `seconds` and give all nodes that answered."""
    async with Browser() as browser:
        await asyncio.sleep(seconds)
        return browser.nodes()


async def find(wanted: Callable[[Advertisement], bool], timeout: float) -> Advertisement | None:
    """Return the first node that is wanted, or None after `timeout` seconds."""
    async with Browser() as browser:
        try:
            async with asyncio.timeout(timeout):
                async for nodes in browser.changes():
                    for node in nodes:
                        if wanted(node):
                            return node
        except TimeoutError:
            pass
    return None
