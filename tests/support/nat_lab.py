"""Sites behind routers that translate addresses, and the internet between them, of Linux network namespaces.

    a ── router-a ── internet ── router-b ── b
                        │
                     registry            (two addresses; further hosts by `public_host`)

The routers are what `Nat` says. It takes root, `ip` (iproute2) and `nft` (nftables).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from enum import StrEnum

from tests.support.lab import Lab, lab

__all__ = ["REGISTRY", "REGISTRY_TOO", "Nat", "Site", "Sites", "many_sites", "sites"]

Site = str
"""A site's name, and its host's; with `router-` before it, an interface's too: eight characters at most."""

REGISTRY, REGISTRY_TOO = "100.64.0.10", "100.64.0.11"
"""Where the host `registry` is."""
_PORTS = itertools.cycle([(10_000, 14_999), (15_000, 19_999), (20_000, 24_999)])
"""Of mappings after the first: none of them is a port that hosts take by themselves."""


class Nat(StrEnum):
    """What stands before a host. All keep the port where they can, but `SYM`."""

    OPEN = "open"
    """Nothing: the host's address is public."""
    FULL = "full"
    """One mapping for all destinations, and whoever sends to it reaches the host; hairpin."""
    CONE = "cone"
    """One mapping for all destinations; only whom the host has sent something reaches it (RFC 4787: endpoint-
    independent mapping, address- and port-dependent filtering). What else comes is dropped."""
    LEAKY = "leaky"
    """The same, but the router itself takes what is dropped there, and then has the port in use for that sender."""
    SYM = "sym"
    """A random port for each destination (address- and port-dependent mapping)."""
    NOUDP = "noudp"
    """As `CONE`, and no UDP passes at all."""


def _rules(kind: Nat, way_in: str, way_out: str, lan: str, wan: str, ports: str) -> str:
    """Return a router's whole ruleset as `nft -f` takes it; its interfaces are named after where they lead."""
    inside, outside = f'iifname "{way_in}"', f'iifname "{way_out}"'
    leaving, forwards, before = f'oifname "{way_out}"', [f"{outside} ct state new drop"], []
    after = [f"{leaving} meta l4proto udp masquerade {ports}", f"{leaving} masquerade"]
    match kind:
        case Nat.OPEN:
            forwards, after = [], []
        case Nat.NOUDP:
            forwards.insert(0, "meta l4proto udp drop")
        case Nat.SYM:
            after = [f"{leaving} masquerade fully-random"]
        case Nat.FULL:
            forwards = [f"{inside} {leaving} ip saddr {lan} meta l4proto udp update @m {{ udp sport : ip saddr }}"]
            before = [f"ip daddr {wan} meta l4proto udp dnat to udp dport map @m"]
            after.append(f"ip saddr {lan} ip daddr {lan} masquerade")
    unknown = "accept" if kind is Nat.LEAKY else "drop"
    return f"""
        flush ruleset
        table ip n {{
            map m {{ type inet_service : ipv4_addr; flags dynamic,timeout; timeout 2m; size 65535; }}
            chain forwarded {{ type filter hook forward priority 0; policy accept; {";".join(forwards)}; }}
            chain incoming {{ type filter hook input priority 0; policy accept; {outside} ct state new {unknown}; }}
            chain before {{ type nat hook prerouting priority -100; {";".join(before)}; }}
            chain after {{ type nat hook postrouting priority 100; {";".join(after)}; }}
        }}
    """


class Sites:
    """The sites, made by `sites` or `many_sites`.

    Attributes:
        lab: runs programs on the sites' hosts, on `registry` and on those of `public_host`.
        kinds: what stands before each site.
    """

    def __init__(self, lab: Lab, kinds: Mapping[Site, Nat], delay_s: float) -> None:
        self.lab = lab
        self._delay_s = delay_s
        self.kinds = dict(kinds)
        self._numbers = {site: number for number, site in enumerate(kinds, 1)}
        self._wan: dict[Site, str] = {}
        self._public = 0
        lab.host("internet", forwards=True)
        self.public_host("registry", REGISTRY, REGISTRY_TOO)
        for site in self.kinds:
            self._make(site)

    def address(self, site: Site) -> str:
        """Return the address that a site's host has itself."""
        number = self._numbers[site]
        return f"100.64.{100 + number}.2" if self.kinds[site] is Nat.OPEN else f"192.168.{number}.2"

    def public_address(self, site: Site) -> str:
        """Return the address that the internet sees of a site's host."""
        return self.address(site) if self.kinds[site] is Nat.OPEN else self._wan[site]

    def public_host(self, name: str, *addresses: str) -> None:
        """Add a host with addresses of one network, 100.64.N.0/24, of which .1 becomes the internet's."""
        router = addresses[0].rpartition(".")[0] + ".1"
        self.lab.host(name)
        self.lab.wire("internet", name)
        self.lab.address("internet", name, f"{router}/24")
        own = [f"addr add {address}/24 dev internet" for address in addresses]
        self.lab.ips(name, *own, f"route replace default via {router}")

    def host_behind(self, site: Site, name: str, kind: Nat) -> None:
        """Make a site's host a router of a kind, with another host behind it: the site's router is its provider's."""
        network, wan, way_out = f"10.{self._numbers[site]}.0", self.address(site), f"router-{site}"
        self.lab.host(name)
        self.lab.wire(site, name)
        self.lab.address(site, name, f"{network}.1/24")
        self.lab.address(name, site, f"{network}.2/24")
        self.lab.route(name, f"{network}.1")
        self.lab.set(site, "net.ipv4.ip_forward", 1)
        rules = _rules(kind, name, way_out, f"{network}.0/24", wan, "")
        self.lab.run(site, "nft", "-f", "-", given=rules)

    def become(self, site: Site, kind: Nat) -> None:
        """Let a router translate in another way; what it has translated so far it forgets. `OPEN` is for ever."""
        assert Nat.OPEN not in (kind, self.kinds[site])
        self.kinds[site] = kind
        self.rebind(site)

    def rebind(self, site: Site) -> None:
        """Let a router forget all mappings, as one does that restarts; new ones get other ports."""
        first, last = next(_PORTS)
        self._translate(site, f"to :{first}-{last}")
        self._forget(site, self._wan[site])

    def renumber(self, site: Site) -> None:
        """Give a router another public address, as providers do over night."""
        network, _, host = self._wan[site].rpartition(".")
        before, self._wan[site] = self._wan[site], f"{network}.{int(host) + 1}"
        self._translate(site)
        self._forget(site, before)

    def move(self, site: Site, host: int) -> None:
        """Give a site's host another address in its network, for good; it ends with this number."""
        own, way_out = self.address(site), f"router-{site}"
        network = own.rpartition(".")[0]
        self.lab.ips(
            site,
            f"addr del {own}/24 dev {way_out}",
            f"addr add {network}.{host}/24 dev {way_out}",
            f"route replace default via {network}.1",
        )

    def second_address(self, site: Site, present: bool) -> None:
        """Add a second address, which ends with 3, to a site's host, or remove it."""
        network = self.address(site).rpartition(".")[0]
        self.lab.ips(site, f"addr {'add' if present else 'del'} {network}.3/24 dev router-{site}")

    def _make(self, site: Site) -> None:
        number, router = self._numbers[site], f"router-{site}"
        network = self.address(site).rpartition(".")[0]
        self._wan[site] = f"100.64.{number}.2"
        self.lab.host(site)
        self.lab.host(router, forwards=True)
        self.lab.wire(router, site)
        self.lab.address(router, site, f"{network}.1/24")
        self.lab.ips(site, f"addr add {network}.2/24 dev {router}", f"route replace default via {network}.1")
        if self._delay_s:
            self.lab.slow_wire(router, "internet", self._delay_s)
        else:
            self.lab.wire(router, "internet")
        there = [f"addr add 100.64.{number}.1/24 dev {router}"]
        if self.kinds[site] is Nat.OPEN:
            there.append(f"route add {network}.0/24 via {self._wan[site]}")
        self.lab.ips("internet", *there)
        self._translate(site)
        self._forget(site, "")

    def _forget(self, site: Site, before: str) -> None:
        """Set a router's public address anew, so that the kernel forgets what it masqueraded behind the old one.

        It is done at once, as a router does it: packets that come meanwhile find no way.
        """
        lines = [f"addr add {self._wan[site]}/24 dev internet", f"route replace default via {self._gateway(site)}"]
        if before:
            lines.insert(0, f"addr del {before}/24 dev internet")
        self.lab.ips(f"router-{site}", *lines)

    def _gateway(self, site: Site) -> str:
        return f"100.64.{self._numbers[site]}.1"

    def _translate(self, site: Site, ports: str = "") -> None:
        lan = self.address(site).rpartition(".")[0] + ".0/24"
        rules = _rules(self.kinds[site], site, "internet", lan, self._wan[site], ports)
        self.lab.run(f"router-{site}", "nft", "-f", "-", given=rules)


@contextlib.contextmanager
def many_sites(kinds: Mapping[Site, Nat], *, delay_s: float = 0.0) -> Iterator[Sites]:
    """Lay the networks, with sites of these names; they are gone at the end of the block.

    Args:
        delay_s: how long packets take between a site and the internet, one way.
    """
    with lab() as made:
        yield Sites(made, kinds, delay_s)


@contextlib.contextmanager
def sites(a: Nat, b: Nat, *, delay_s: float = 0.0) -> Iterator[Sites]:
    """Lay the networks of two sites, `a` and `b`, as `many_sites` does."""
    with many_sites({"a": a, "b": b}, delay_s=delay_s) as made:
        yield made
