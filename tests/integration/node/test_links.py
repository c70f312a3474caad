"""Links over real sockets: cut at any byte, the node moved or replaced, the share ended, a node that lies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client, Run
from kodo.node.app import Node
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, PeerError, UnreachableError, UsageError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.keystore import load_certificate, make_home
from kodo.protocol.link import Link, encode_token, parse_link
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from kodo.registry.server import Registry, RegistryConfig
from tests.chaos.link_cuts import cut_downloads
from tests.support.links import (
    assert_no_partial,
    made_run,
    moved,
    node_at,
    through,
    user,
)
from tests.support.lossy_relay import lossy_relay


async def test_a_download_that_is_cut_at_any_byte_is_whole_in_the_end_and_counts_once(tmp_path: Path) -> None:
    assert await cut_downloads(tmp_path, 12, seed=20) == 12


async def test_a_node_that_moved_is_found_by_its_peer_id_in_a_registry(tmp_path: Path) -> None:
    async with Registry(RegistryConfig(home=make_home(tmp_path / "registry"), port=0)) as registry:
        async with node_at(tmp_path / "node", registries=(registry.url,)) as node, user(tmp_path / "ana") as ana:
            run = await made_run(ana, node, 1000)
            link, old = str(await run.share()), node.addresses[0].port
            assert parse_link(link).registry == registry.url
        (tmp_path / "node" / "port").unlink(missing_ok=True)
        async with (
            occupied(tmp_path / "other", old),
            node_at(tmp_path / "node", registries=(registry.url,)) as node,
            user(tmp_path / "bob", timeout=4) as bob,
            user(tmp_path / "zoe", timeout=4, registries=[registry.url]) as zoe,
        ):
            assert node.addresses[0].port != old
            # Nobody is asked whom the user did not configure or agree to.
            with pytest.raises(UnreachableError, match=f"--registry {registry.url}"):
                await bob.get(link)
            asked: list[str] = []
            with pytest.raises(UnreachableError):
                await bob.get(link, confirm=lambda url: bool(asked.append(url)))
            assert asked == [registry.url]
            await announced(zoe, node)
            assert (await (await bob.get(link, confirm=lambda url: True)).state())["state"] == "done"
            found = await zoe.get(link)
            assert [file.size for file in await found.download(tmp_path / "out")] == [1000, 6]


@contextlib.asynccontextmanager
async def occupied(home: Path, port: int) -> AsyncIterator[None]:
    """Let another node have a port."""
    async with node_at(home, port=port):
        yield


async def announced(client: Client, node: Node) -> None:
    """Wait until the registry has the addresses that the node has now."""
    here = [str(address) for address in node.addresses]

    async def told() -> bool:
        return [row["addrs"] for row in await client.nodes() if row["peer_id"] == node.peer_id] == [here]

    for _ in range(400):
        if await told():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the registry did not learn it")


async def test_who_else_answers_at_the_address_of_a_link_gets_nothing(tmp_path: Path) -> None:
    async with node_at(tmp_path / "node") as node, user(tmp_path / "u") as bob:
        run = await made_run(bob, node, 10)
        link = str(await run.share())
        peer_id = parse_link(link).peer_id
    async with user(tmp_path / "v", timeout=4) as bob, node_at(tmp_path / "other") as other:
        there = moved(link, addresses=(other.addresses[0].with_peer(peer_id),))
        with pytest.raises(UnreachableError, match=r"is 12D3Koo\w+, not 12D3Koo"):
            await bob.get(there)


async def test_a_share_that_is_revoked_ends_a_download_and_a_follower_at_once(tmp_path: Path) -> None:
    size = 6 << 20
    async with node_at(tmp_path / "node") as node, user(tmp_path / "ana") as ana, user(tmp_path / "bob") as bob:
        run = await made_run(ana, node, size)
        share = await run.share()
        folder = tmp_path / "out"
        begun = asyncio.Event()
        port = node.addresses[0].port
        # As slow as many a line: what the node has written ahead would take a second and more.
        async with lossy_relay(("127.0.0.1", port), seed=1, rate=1e6, delay_s=0.01, queue=50_000) as relay:
            got = await bob.get(through(str(share), relay))
            downloading = asyncio.create_task(
                got.download(folder, on_progress=lambda progress: progress.done and begun.set())
            )
            await begun.wait()
            await run.unshare(share)
            before = relay.back.passed
            with pytest.raises(CallError) as caught:
                async with asyncio.timeout(10):
                    await downloading
            assert relay.back.passed - before < 300, "datagrams that came after it was revoked"
        assert (caught.value.code, caught.value.reason) == (410, "revoked")
        for session in list(bob._open_host()._sessions):
            await session.aclose()
        assert_no_partial(folder, size)
        assert list(folder.rglob("big.bin")) == []

        waiting = await ana.launch(f"{node.addresses[0]}/flows.wait")
        share = await waiting.share(expires=3600)
        followed = await bob.get(str(share))
        names: list[str] = []
        asked = asyncio.Event()

        async def follow() -> None:
            async for event in followed.follow():
                names.append(event.event)
                if event.event == "lock":
                    asked.set()

        following = asyncio.create_task(follow())
        async with asyncio.timeout(10):
            await asked.wait()
            await waiting.unshare(share.sid)
            with pytest.raises(CallError, match="revoked"):
                await following
        assert not {"share", "unshare"} & set(names)
        await waiting.kill()


async def test_a_link_works_after_its_node_was_started_again(tmp_path: Path) -> None:
    async with user(tmp_path / "bob") as bob:
        async with node_at(tmp_path / "node") as node, user(tmp_path / "ana") as ana:
            run = await made_run(ana, node, 5000)
            share = await run.share(downloads=1)
            got = await bob.get(str(share))
            await got.download(tmp_path / "out")
        async with node_at(tmp_path / "node"):
            assert (await got.state())["own"] is False
            with pytest.raises(CallError, match="all of them were made"):
                async with user(tmp_path / "eve") as eve:
                    await eve.get(str(share))


class Liar:
    """A node that opens every link and says that its run made files with these names."""

    def __init__(self, fid: str, names: list[str]):
        self.fid = fid
        self.names = names
        self.read: list[str] = []

    async def __call__(self, request: Request) -> Any:
        builder = ManifestBuilder()
        builder.update(b"owned")
        whole = builder.finish()
        match request.op:
            case "share.open":
                return {"fid": self.fid, "level": 2, "node": {"name": "\x1b[31mliar"}}
            case "run.state":
                return {"fid": self.fid, "state": "done", "level": 2}
            case "output.list":
                return {"result": [{"name": name, "size": 5} for name in self.names]}
            case "output.manifest":
                head = {"size": 5, "sha256": whole.sha256.hex(), "chunk_bytes": CHUNK_BYTES, "from": 0}
                return {**head, "chunks": list(whole.chunks)}
            case "output.read":
                self.read.append(request.args["name"])
                await request.send(b"owned")
                return {"bytes": 5}
        raise CallError(404, "no-such-op", request.op)


@contextlib.asynccontextmanager
async def lying(home: Path, names: list[str]) -> AsyncIterator[tuple[Liar, str]]:
    identity = Identity.from_seed(b"l" * 32)
    fid = "01jd2n8x4q5w6e7r8t9y0abcde"
    liar = Liar(fid, names)
    async with Host(identity, WebRtcTransport(load_certificate(make_home(home)))) as host:
        host.handle(CALL_PROTOCOL, CallServer(liar))
        addresses = await host.listen(["127.0.0.1"], 0)
        hints = tuple(address.with_peer(identity.peer_id) for address in addresses)
        yield liar, encode_token(Link(identity.peer_id, fid, bytes(16), hints))


async def opened(client: Client, token: str) -> Run:
    return await client.get(f"kodo:{token}")


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/out.txt", "a/../../out.txt", "a\x00b", "a/\x00", "..", ".", "a//b", ""],
)
async def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_fetched(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "out"
    async with lying(tmp_path / "liar", ["good.txt", name]) as (liar, token), user(tmp_path / "bob") as bob:
        run = await opened(bob, token)
        assert run.node == str(run.peer_id)  # a name that moves a cursor is not shown
        with pytest.raises(PeerError):
            await run.download(folder)
        assert liar.read == []
        assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("a\\..\\out.txt", "a\\..\\out.txt"),
        ("C:out.txt", "C:out.txt"),
        ("CON", "CON"),
        ("\u202eexe", "%E2%80%AEexe"),
        ("a\nb", "a%0Ab"),
    ],
)
async def test_a_name_that_leaves_no_folder_here_is_one_file_there(tmp_path: Path, name: str, saved: str) -> None:
    folder = tmp_path / "in" / "out"
    async with lying(tmp_path / "liar", [name]) as (_, token), user(tmp_path / "bob") as bob:
        await (await opened(bob, token)).download(folder)
    assert [each.name for each in folder.iterdir()] == [saved]
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


async def test_a_symbolic_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    folder.mkdir()
    (outside / "file.txt").write_text("mine")
    (folder / "sub").symlink_to(outside)
    (folder / "file.txt").symlink_to(outside / "file.txt")
    async with user(tmp_path / "bob") as bob:
        for name in ("sub/file.txt", "file.txt"):
            async with lying(tmp_path / "liar", [name]) as (_, token):
                run = await opened(bob, token)
                with pytest.raises(UsageError):
                    await run.download(folder)
                for session in list(bob._open_host()._sessions):
                    await session.aclose()
        async with lying(tmp_path / "liar", ["file.txt"]) as (_, token):
            run = await opened(bob, token)
            await run.download(folder, overwrite=True)
    assert (outside / "file.txt").read_text() == "mine"
    assert not (folder / "file.txt").is_symlink()
    assert sorted(path.name for path in outside.iterdir()) == ["file.txt"]
