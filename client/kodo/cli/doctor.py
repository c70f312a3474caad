"""`koco doctor`: what a node and a client need on this machine, what is there, and what to do about the rest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import http.client
import os
import shlex
import shutil
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_node
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import KodoError

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["Finding", "beyond_loopback", "register"]

RESERVE_BYTES = 256 << 20
CLOCK_SECONDS = 60.0
REGISTRY_SECONDS = 5.0
_PROXY_REFUSALS = frozenset([403, 407, 502, 503, 504])
"""What a proxy answers that does not reach a registry, or may not."""
MAX_SESSIONS = 5
"""Nodes whose latest session is told."""
LEAST_PORT = 1024
"""Relays give who comes by TCP a port below: no UDP goes there."""


To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="NODE",
        help="Instead, show how this node is reached: which places know it, which of its addresses answer, "
        "and which way the session takes.",
        autocompletion=complete_node,
    ),
]


class Finding(NamedTuple):
    """One thing that was looked at; `todo` is empty when it is well."""

    check: str
    found: str
    todo: str = ""


async def doctor(context: Context, to: To = None) -> int:
    """Check home, keys, disk, clock, port, local network, registries, NAT and Ray, and the node of this home
    with its room and webhooks. Exit code 1: a check failed.
    """
    from kodo.cli.exits import Exit
    from kodo.cli.table import Table

    if to is not None:
        return await _doctor_to(context, to)
    findings = [*_home(context.loaded.home), _disk(context), _port(context), *_ray(context.loaded.home)]
    findings += await asyncio.gather(*(_registry(context, url) for url in context.loaded.settings.registry))
    findings += await _nat(context)
    findings += [_clock(context.loaded.home), await _lan(context), *await _node(context)]
    findings += _sessions(context.loaded.home)
    sick = [each for each in findings if each.todo]
    if context.json:
        context.emit({"ok": not sick, "findings": [{**each._asdict(), "ok": not each.todo} for each in findings]})
    else:
        table = Table("CHECK", "", "FOUND")
        for each in findings:
            table.add(each.check, "ok" if not each.todo else "!!", each.found)
        context.show_table(table)
        for each in sick:
            context.show(f"{each.check}: {each.todo}")
    return Exit.RUN_FAILED if sick else Exit.OK


def _home(home: Path) -> Iterator[Finding]:
    if not home.exists():
        parent = next(each for each in home.parents if each.exists())
        todo = (
            "" if os.access(parent, os.W_OK) else f"set KODO_HOME to a folder below one you may write to, not {home}"
        )
        yield Finding("home", f"{home} does not exist yet", todo)
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    todo = "" if not mode & 0o022 and os.access(home, os.W_OK) else f"chmod 700 {shlex.quote(str(home))}"
    yield Finding("home", f"{home}, mode {mode:04o}", todo)
    keys = [*sorted(home.glob("*.key")), *(each for each in [home / "ray" / "token"] if each.exists())]
    for key in keys:
        mode = stat.S_IMODE(key.stat().st_mode)
        yield Finding(
            "key", f"{key.name}, mode {mode:04o}", f"chmod 600 {shlex.quote(str(key))}" if mode & 0o077 else ""
        )


def _disk(context: Context) -> Finding:
    place = next(each for each in [context.loaded.home, *context.loaded.home.parents] if each.exists())
    free = shutil.disk_usage(place).free
    reserve = context.loaded.settings.disk_reserve_bytes
    reserve = RESERVE_BYTES if reserve is None else reserve
    found = f"{free >> 20} MiB free, {reserve >> 20} MiB are kept in reserve"
    return Finding(
        "disk", found, "" if free > reserve else f"free space on the disk of {place}: launches are refused"
    )


def _clock(home: Path) -> Finding:
    """A clock that went back makes events of the future; compare with what was written here last."""
    ahead = 0.0
    for file in (home / "node.db", home / "known_nodes", home / "user.key"):
        with contextlib.suppress(OSError):
            ahead = max(ahead, file.stat().st_mtime - time.time())
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if ahead > CLOCK_SECONDS:
        return Finding("clock", f"{found}; {home} was written {ahead:.0f} s later", "set this machine's clock (NTP)")
    return Finding("clock", found)


def _port(context: Context) -> Finding:
    from kodo.client.finders import read_home_node

    settings = context.loaded.settings
    if read_home_node(context.loaded.home) is not None:
        return Finding("port", "used by the node of this home")
    for host in settings.host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, settings.port))
        except OSError as error:
            if family == socket.AF_INET6 and host == "::":
                continue  # a machine without IPv6 does without
            todo = (
                "take another with --port or KODO_PORT, or end what has it; --host takes an address of this machine"
            )
            return Finding("port", f"UDP {host} {settings.port}: {error.strerror}", todo)
    return Finding("port", f"UDP {settings.port or 'any'} on {' '.join(settings.host)} is free")


async def _registry(context: Context, url: str) -> Finding:
    from kodo.access.outgoing import proxy_to, shown_proxy, use_proxy
    from kodo.p2p.net.unattended import unattended

    use_proxy(context.loaded.settings.proxy)
    proxy: str | None = None

    # Neither a name that nobody resolves nor an answer that comes byte by byte is bounded by urllib.
    try:
        async with asyncio.timeout(REGISTRY_SECONDS):
            proxy = await proxy_to(url)
            date = await unattended(partial(_date_at, url, proxy), "registry check")
    except TimeoutError:
        why = f"no answer within {REGISTRY_SECONDS:g} s"
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", error))
    else:
        off = _clock_off(date)
        if off is None:
            return Finding("registry", f"{url} answers, and does not tell its time")
        todo = "set this machine's clock (NTP), or the registry's" if off > CLOCK_SECONDS else ""
        return Finding("registry", f"{url} answers; its clock differs from this machine's by {off:.0f} s", todo)
    by = "" if proxy is None else f", by the proxy {shown_proxy(proxy)}"
    todo = "check that it runs, and that KODO_REGISTRY is right" + (", and KODO_PROXY" if proxy else "")
    return Finding("registry", f"{url}{by}: {why}", todo)


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would take the proxy's password along."""

    def redirect_request(self, *_: Any) -> None:
        """Treat the redirect as the answer."""


def _date_at(url: str, proxy: str | None) -> str | None:
    """Return what a registry says is the time. Blocks."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Straight)
    asked = urllib.request.Request(f"{url.rstrip('/')}/")
    if proxy is not None:
        _go_by(asked, proxy)
    try:
        with opener.open(asked, timeout=REGISTRY_SECONDS) as answer:
            return str(answer.headers.get("Date"))
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if proxy is not None and url.startswith("http:") and error.code in _PROXY_REFUSALS:
                raise OSError(f"HTTP {error.code}, from the proxy or what is behind it") from None
            if error.code in range(300, 400):
                raise OSError("it leads to another address; a registry does not") from None
            return error.headers.get("Date")


def _go_by(asked: urllib.request.Request, proxy: str) -> None:
    """Send a request by a proxy; urllib would look at `NO_PROXY`, which does not count for one that was named."""
    parts = urlsplit(proxy)
    login, _, place = parts.netloc.rpartition("@")
    if login:
        secret = base64.b64encode(unquote(login).encode()).decode()
        asked.add_unredirected_header("Proxy-authorization", f"Basic {secret}")
    asked.set_proxy(place, parts.scheme)


def _clock_off(date: str | None) -> float | None:
    """Return by how many seconds a `Date` differs from this machine's clock; None: it is none."""
    try:
        return abs(email.utils.parsedate_to_datetime(date or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


NATS = {
    "open": "nothing translates this machine's addresses: others reach a node here directly, where no firewall keeps "
    "them out",
    "endpoint-independent": "a NAT gives this machine one address and port for everybody (endpoint-independent): "
    "others reach a node here directly once a registry has introduced them",
    "address-dependent": "a NAT gives this machine another address or port for each host (address-dependent): others "
    "reach a node here through a registry that relays",
    "address- and port-dependent": "a NAT gives this machine another port for each that it talks to (symmetric): "
    "others reach a node here through a registry that relays",
    "translated": "there is a NAT before this machine; which kind is only known where two registries answer",
    "blocked": "no registry answers over UDP: UDP is blocked here, or these registries do not offer it",
    "unknown": "not known: no registry outside of the own network answers over UDP",
}
"""What each kind of NAT means for who runs a node, by `NatKind`."""
NO_UDP = (
    "no UDP gets from here to a registry: the relay over TCP is used, for sessions with others and by a node here; "
    "let UDP out to the registry's port for faster ones"
)
"""Instead of `blocked`, where the relay of a registry takes connections."""


async def _nat(context: Context) -> list[Finding]:
    from kodo.client.reach import nat_of
    from kodo.registry.client.relaying import takes_connections

    registries = context.loaded.settings.registry
    families = await nat_of(registries)
    texts = dict(NATS)
    if any(family.kind == "blocked" for family in families):
        by_tcp = await asyncio.gather(*map(takes_connections, registries))
        if any(by_tcp):
            texts["blocked"] = NO_UDP
    return [Finding("nat", f"{each.name}: {texts[each.kind]}{_seen_at(each.seen_at)}") for each in families]


def _seen_at(seen: Iterable[tuple[str, int]]) -> str:
    told = ", ".join(f"{host} port {port}" for host, port in list(seen)[:4])
    return f" (seen at {told})" if told else ""


async def _doctor_to(context: Context, node: str) -> int:
    """Show how a node is reached."""
    from kodo.cli.exits import Exit
    from kodo.cli.table import Table
    from kodo.client.reach import reach

    async with context.client() as client:
        found = await reach(client, node)
    if context.json:
        context.emit({"ok": found.error is None, **found.to_json()})
        return Exit.RUN_FAILED if found.error else Exit.OK
    told = found.to_json()
    places = Table("ASKED", "TIME", "TELLS")
    for each in told["places"]:
        tells = f"{len(each['addresses'])} of its addresses" if each["addresses"] else "nothing"
        places.add(each["place"], f"{each['ms']} ms", each["error"] or tells)
    context.show_table(places)
    if told["ways"]:
        ways = Table("ADDRESS", "ANSWER")
        for each in told["ways"]:
            ways.add(each["address"], _answer(each))
        context.show()
        context.show_table(ways)
    context.show()
    if found.at is None:
        context.show(f"no session: {found.error}")
        return Exit.RUN_FAILED
    where = f"at {found.at[0]} port {found.at[1]}, within {told['session']['ms']} ms"
    context.show(f"session with {found.peer_id}: {found.route}, {where}")
    return Exit.OK


def _answer(way: dict[str, Any]) -> str:
    """Return what came of asking at an address, for people."""
    if way["answered"]:
        host, port = way["seen_at"]
        if way["introduced"]:
            return f"after {way['ms']} ms: introduces, and relays nothing; it sees this machine at {host} port {port}"
        over = " over the registry's relay" if way["relayed"] else ""
        if port < LEAST_PORT:
            return f"after {way['ms']} ms{over}; no UDP gets there from here"
        return f"after {way['ms']} ms{over}; it sees this machine at {host} port {port}"
    return str(way["refused"] or "none")


async def _lan(context: Context) -> Finding:
    if not context.loaded.settings.lan:
        return Finding("lan", "not used (--no-lan)")
    from kodo.p2p.net.discovery import browse
    from kodo.p2p.net.interfaces import local_addresses

    try:
        found = await browse(context.loaded.settings.browse_s)
    except (KodoError, OSError) as error:
        return Finding("lan", str(error), "allow multicast on UDP port 5353 in the firewall, or use --no-lan")
    return Finding("lan", f"{len(found)} nodes seen from {' '.join(local_addresses()) or 'loopback only'}")


def _ray(home: Path) -> Iterator[Finding]:
    import importlib.util
    from importlib.metadata import PackageNotFoundError, version

    if importlib.util.find_spec("ray") is None:
        yield Finding(
            "ray", f"not installed; flows that need it do not run here. To add it, {how_to_install('node')}"
        )
        return
    with contextlib.suppress(PackageNotFoundError):
        yield Finding("ray", f"Ray {version('ray')}")
    with contextlib.suppress(OSError, KeyError):
        import pwd

        owner = pwd.getpwuid((home / "apart").lstat().st_uid).pw_name
        yield Finding("ray", f"flows run as {owner}, and so does their Ray; its files are not looked at")
    if not (home / "ray" / "cluster.json").exists():
        return
    from kodo.node.executors.ray.cluster import cluster_lives, listening_sockets

    if not cluster_lives(home):
        yield Finding("ray", "this home's Ray has died", "start the node again (koco up): it starts a new Ray")
        return
    sockets = listening_sockets(home)
    wide = beyond_loopback(sockets)
    found = f"{len(sockets)} sockets of this home's Ray, {len(wide)} of them beyond loopback"
    yield Finding(
        "ray", found, f"restart the node; if these stay open, report them: {', '.join(wide)}" if wide else ""
    )


def beyond_loopback(sockets: Iterable[tuple[int, str, str, int]]) -> list[str]:
    """Return which of these sockets, `(pid, process name, ip, port)`, others than this machine reach."""
    from kodo.p2p.core.hosts import is_loopback

    return sorted({f"{name} {ip}:{port}" for _, name, ip, port in sockets if not is_loopback(ip)})


async def _node(context: Context) -> list[Finding]:
    from kodo.client.finders import read_home_node

    here = read_home_node(context.loaded.home)
    if here is None:
        return [Finding("node", "none runs from this home")]
    try:
        async with context.client() as client:
            state = await (await client.node(str(here["peer_id"]))).request("node.state", {})
    except (KodoError, TimeoutError) as error:
        return [Finding("node", str(error), "koco down, or end it by its process id, then koco up")]
    twins = ", ".join(map(str, state.get("twins") or ()))
    found = f"{state['name']} answers, up for {state['uptime_s']:.0f} s"
    todo = ""
    away = ", ".join(str(each.get("url")) for each in state.get("registries") or () if not each.get("online"))
    if away:
        found += f"; its record is not at {away}"
    if twins:
        todo = "stop one of the two, for callers reach either; a second node needs a home of its own, not a copy"
        found = f"{found}; another node has the same key, at {twins}"
    return [Finding("node", found, todo), *_room(state.get("room")), *_webhooks(state.get("webhooks") or ())]


def _sessions(home: Path) -> Iterator[Finding]:
    """Which ways the latest sessions took, and why not a better one."""
    from kodo.cli.text import human_time
    from kodo.client.last_sessions import WHY, LastSessions

    for each in list(LastSessions(home / "last_sessions").all().values())[: -MAX_SESSIONS - 1 : -1]:
        found = f"{each.name}: {each.route} on {human_time(each.at)}"
        if why := WHY[each.route]:
            found += f"; {why} (known: {each.addresses}); koco doctor --to {shlex.quote(each.name)} asks each of them"
        yield Finding("session", found)


def _room(told: Any) -> Iterator[Finding]:
    """What the node keeps, and whether it takes more; an earlier node does not tell."""
    from kodo.cli.text import human_bytes, line

    if not isinstance(told, Mapping):
        return
    kept, quota = sum((told.get("kept") or {}).values()), told.get("quota")
    found = f"the node keeps {human_bytes(kept)}" + (f" of {human_bytes(quota)} that it may keep" if quota else "")
    full, waiting = told.get("full"), told.get("waiting")
    if full:
        found += f"; {line(full, 300)}"
    if waiting:
        found += f"; runs that wait for room: {waiting}"
    yield Finding("room", found, "koco cleanup --dry-run shows what would make room" if full or waiting else "")


_REPAIR_TARGET = (
    "repair the target, or correct its address in webhooks or apprise in kodo.toml and restart the node; "
    "koco webhooks --test tries it"
)


def _webhooks(told: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    from kodo.cli.text import human_time

    for each in told:
        target, why = each.get("target"), each.get("why")
        if each.get("failing_since"):
            since, waiting = human_time(each["failing_since"]), each.get("queued")
            found = f"{target} has been failing since {since}: {why}; notices that wait: {waiting}"
            yield Finding("webhook", found, _REPAIR_TARGET)
        elif why:
            yield Finding("webhook", f"{target}: the last notice is being tried again: {why}")
        else:
            yield Finding("webhook", f"{target}: notices arrive")


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "doctor", bounded=True)(doctor)
