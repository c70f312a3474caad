"""WebRTC Direct as a transport: listens for links and dials them over plain UDP.

The dialer checks all addresses with STUN binding requests, then runs DTLS, SCTP and Noise over the first that
answers; there is no offer and no answer, for the addresses say it all. A listener that is a full ICE agent checks the
dialer in turn, and is answered. Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kodo.p2p.core.hosts import is_link_local
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.paths import Target, rank_targets
from kodo.p2p.errors import IdentityError, UnreachableError
from kodo.p2p.net.budget import shared_budget
from kodo.p2p.net.interfaces import link_local_interfaces, local_networks
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.names import look_up
from kodo.p2p.net.transport import Limits, Link, Punch

# TLS, SCTP and what they need are imported at the first dial: many a command finds nobody to dial.
if TYPE_CHECKING:
    from kodo.p2p.net.certificate import Certificate
    from kodo.p2p.net.dialler import Dialler
    from kodo.p2p.net.link import WebRtcLink
    from kodo.p2p.net.listener import LiveLinks, WebRtcListener

__all__ = ["WebRtcTransport"]

OTHERS_SECONDS = 2.0
"""How long a peer's other addresses may take once somebody else has answered at one of them."""
RESOLVED = 4
"""Addresses of one name that are checked."""
LOOKUPS = 4
"""Names of one peer that are looked up at once."""


class WebRtcTransport:
    """Dials and listens.

    Args:
        certificate: what listeners show; dialers show one of their own that lives as long as the process, so that
            a passive watcher cannot tell a user by it.
        admits: whether packets from an IP address are answered at all; None: those that a relay passes on, which
            alone says where they are from.
        carriers: connect to relays where UDP is blocked.
        punch: when a peer that comes through a relay learns where the listener is, and is let in there.
    """

    def __init__(
        self,
        certificate: Certificate | None = None,
        *,
        admits: Callable[[str | None], bool] = lambda host: True,
        carriers: Sequence[Carrier] = (),
        punch: Punch = "early",
    ):
        self._carriers = carriers
        self._udp_is_blocked = False
        """Whether the last peer that answered did so by a connection alone."""
        self._given_certificate = certificate
        self._admits = admits
        self._punch: Punch = punch

    @cached_property
    def _certificate(self) -> Certificate:
        from kodo.p2p.net.certificate import Certificate

        return self._given_certificate or Certificate.generate()

    @cached_property
    def _dialling_certificate(self) -> Certificate:
        from kodo.p2p.net.certificate import Certificate

        return Certificate.generate()

    @cached_property
    def _live(self) -> LiveLinks:
        from kodo.p2p.net.listener import LiveLinks

        return LiveLinks()

    def address_for(self, host: str, port: int) -> Multiaddr:
        """Return the address at which a listener on this host and port is reached."""
        return Multiaddr.webrtc_direct(host, port, self._certificate.digest)

    async def listen(
        self, host: str, port: int, identity: Identity, limits: Limits, accept: Callable[[Link], None]
    ) -> WebRtcListener:
        """Listen on one address; see `transport.Transport`."""
        from kodo.p2p.net.listener import WebRtcListener

        listener = WebRtcListener(
            identity,
            self._certificate,
            limits,
            accept,
            self._admits,
            budget=shared_budget(limits.kept_bytes, limits.kept_bytes_per_source),
            live=self._live,
            punch=self._punch,
        )
        await listener.open(host, port)
        return listener

    async def dial(self, addresses: Sequence[Multiaddr], identity: Identity, limits: Limits) -> Link:
        """Dial the addresses of one listener together; see `transport.Transport`."""
        from kodo.p2p.net.dialler import Dialler

        wrong: set[Target] = set()
        failed: IdentityError | None = None
        while True:
            dialler = Dialler(peer=addresses[0].peer_id)
            carriers = self._carriers if addresses[0].peer_id is not None and failed is None else ()
            try:
                async with asyncio.timeout(None if failed is None else OTHERS_SECONDS):
                    return await self._dial(dialler, addresses, wrong, carriers, identity, limits)
            except IdentityError as error:
                # An address may be somebody else's in this network: the listener may still be at another one.
                failed = failed or error
                wrong.add(dialler.target)
                if dialler.targets <= wrong:
                    raise failed from None
            except (UnreachableError, TimeoutError):
                if failed is None:
                    raise
                raise failed from None

    async def _dial(
        self,
        dialler: Dialler,
        addresses: Sequence[Multiaddr],
        wrong: Collection[Target],
        carriers: Sequence[Carrier],
        identity: Identity,
        limits: Limits,
    ) -> Link:
        """Run the handshake over the first path that is found; no path leads to a target that is wrong."""
        from kodo.p2p.net.link import WebRtcLink

        expected = addresses[0]
        link: WebRtcLink | None = None
        try:
            places = [target for address in addresses if address.family != "dns4" for target in _targets(address)]
            for carrier in carriers:
                dialler.stand_by(carrier, places, at_once=self._udp_is_blocked)
            async with _finding(dialler, addresses, wrong):
                await dialler.found()
            self._udp_is_blocked = dialler.by_connection
            link = WebRtcLink(
                identity,
                self._dialling_certificate,
                limits,
                dialler,
                dialler.remote_address,
                server=False,
                route=dialler.route,
                budget=shared_budget(limits.kept_bytes, limits.kept_bytes_per_source),
            )
            dialler.link = link
            await link.authenticate(expected_digest=expected.certhash)
            if expected.peer_id is not None and link.remote_peer != expected.peer_id:
                host, port = dialler.remote_address
                raise IdentityError(
                    f"{host} port {port} is {link.remote_peer}, not {expected.peer_id} as its address says"
                )
        except BaseException:
            if link is not None:
                await link.aclose()
            dialler.close()
            raise
        link.on_end = dialler.close
        dialler.settled()
        return link


@contextlib.asynccontextmanager
async def _finding(
    dialler: Dialler, addresses: Sequence[Multiaddr], wrong: Collection[Target]
) -> AsyncIterator[None]:
    """Make the dialler check the addresses inside the block, names as soon as they are resolved."""
    networks, turns = local_networks(), asyncio.Semaphore(LOOKUPS)

    def add(targets: Sequence[Target]) -> None:
        dialler.add([each for each in rank_targets(targets, networks) if each.target not in wrong])

    async def resolve(address: Multiaddr) -> None:
        found = []
        with contextlib.suppress(OSError):
            async with turns:
                found = await look_up(address.host, address.port, family=socket.AF_INET, kind=socket.SOCK_DGRAM)
        dialler.resolving -= 1
        add([Target(str(name[0]), address.port) for *_, name in found[:RESOLVED]])
        dialler.check_refused()

    names = [address for address in addresses if address.family == "dns4"]
    dialler.resolving = len(names)
    add([target for address in addresses if address.family != "dns4" for target in _targets(address)])
    lookups = [asyncio.ensure_future(resolve(address)) for address in names]
    try:
        yield
    except UnreachableError as error:
        where = " or ".join(f"{address.host} port {address.port}" for address in addresses[:4])
        if isinstance(error.__cause__, ConnectionRefusedError):
            raise UnreachableError(f"nobody listens at {where}") from error
        raise UnreachableError(f"{where} cannot be reached: {error}") from error
    finally:
        for lookup in lookups:
            lookup.cancel()
        if lookups:
            await asyncio.wait(lookups)


def _targets(address: Multiaddr) -> list[Target]:
    """Return where the packets to an address go; a link-local one may be in any of this machine's networks."""
    if address.family == "ip6" and is_link_local(address.host):
        return [Target(address.host, address.port, index) for index in link_local_interfaces()]
    return [Target(address.host, address.port)]
