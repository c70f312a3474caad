"""`koco doctor` finds what is wrong, and says what to do."""

from __future__ import annotations

import asyncio
import email.utils
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from kodo.cli import doctor
from kodo.p2p.core.identity import Identity
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from tests.support.koco import koco, koco_json
from tests.support.proxy import proxy


def test_a_fresh_home_is_well_and_a_key_that_others_may_read_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    [told] = koco_json(home, "doctor", "--no-lan")
    assert told["ok"] is True
    assert {"home", "disk", "clock", "port", "ray", "node"} <= {each["check"] for each in told["findings"]}
    koco_json(home, "id")
    (home / "user.key").chmod(0o644)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        variables = {"KODO_PORT": str(taken.getsockname()[1]), "KODO_HOST": "127.0.0.1"}
        variables |= {"KODO_REGISTRY": "http://127.0.0.1:9", "KODO_DISK_RESERVE": "1000TB"}
        done = koco(home, "doctor", "--no-lan", timeout=120, **variables)
    assert done.returncode == 1
    assert f"key: chmod 600 {home / 'user.key'}" in done.stdout
    for check in ("port: ", "registry: ", "disk: "):
        assert check in done.stdout, done.stdout


async def told_of(url: str) -> doctor.Finding:
    """Return what the doctor finds of a registry."""
    context: Any = SimpleNamespace(loaded=SimpleNamespace(settings=SimpleNamespace(proxy=None)))
    return await doctor._registry(context, url)


async def test_a_registry_that_leads_elsewhere_is_not_followed() -> None:
    paths = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        paths.append(path)
        head = b"302 Found\r\nLocation: /other" if path == b"/from/" else b"404 Not Found"
        date = email.utils.formatdate(usegmt=True).encode()
        lines = [b"HTTP/1.1 " + head, b"Date: " + date, b"Content-Length: 0", b"Connection: close", b"", b""]
        writer.write(b"\r\n".join(lines))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        led = await told_of(f"{url}/from")
        there = await told_of(f"{url}/there/")
    assert paths == [b"/from/", b"/there/"]
    assert "leads to another address" in led.found
    assert led.todo
    assert (there.found.partition(";")[0], there.todo) == (f"{url}/there/ answers", "")


@pytest.mark.parametrize("login", [None, "ana:a b"])
async def test_a_proxy_that_was_named_is_gone_by_whatever_no_proxy_says(
    monkeypatch: pytest.MonkeyPatch, login: str | None
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = email.utils.formatdate(usegmt=True).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    monkeypatch.setenv("NO_PROXY", "*")
    hosts = {"registry.example": "127.0.0.1"}
    async with await asyncio.start_server(serve, "127.0.0.1") as server, proxy(hosts, login) as way:
        url = f"http://registry.example:{server.sockets[0].getsockname()[1]}"
        named = way.url if login is None else way.url.replace("://", f"://{quote(login, safe=':')}@")
        date = await asyncio.to_thread(doctor._date_at, url, named)
    assert way.asked == [url.removeprefix("http://")]
    assert email.utils.parsedate_to_datetime(date or "")


async def test_how_a_node_is_reached_is_said_address_by_address(tmp_path: Path) -> None:
    async with Host(Identity.from_seed(b"n" * 32), WebRtcTransport()) as node:
        [address] = await node.listen(["127.0.0.1"])
        where = f"{address}/p2p/{node.peer_id}" if address.peer_id is None else str(address)
        [told] = await asyncio.to_thread(koco_json, tmp_path, "doctor", "--no-lan", "--to", where)
        nobody = where.replace(f"/{address.port}/", "/9/")
        done = await asyncio.to_thread(koco, tmp_path, "doctor", "--no-lan", "--to", nobody)
    assert told["ok"] is True
    assert told["peer_id"] == str(node.peer_id)
    assert (told["session"]["route"], told["session"]["address"]) == ("lan", ["127.0.0.1", address.port])
    [way] = told["ways"]
    assert (way["answered"], way["seen_at"][0], way["refused"]) == (True, "127.0.0.1", None)
    assert done.returncode == 1
    assert "Connection refused" in done.stdout
    assert "no session: nobody listens at 127.0.0.1 port 9" in done.stdout
