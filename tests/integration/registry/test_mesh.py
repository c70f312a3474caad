"""Registries that tell each other: real sockets, real files, processes that are killed."""

import asyncio
import contextlib
import itertools
import json
import random
import subprocess
import time

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kodo.p2p.errors import CallError, UsageError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.records.mesh import Batch, Brought, Item
from kodo.registry.records.record import sign_goodbye, sign_heartbeat
from kodo.registry.records.signed import sign
from kodo.registry.server import Registry, RegistryConfig
from tests.support.koco import KOCO, environment
from tests.support.records import Goodbye, Heartbeat, flow, identity, signed_record

SECONDS = 60


def now():
    return time.time_ns() // 1_000_000


def announce(number, seq=1, **fields):
    of = identity(number)
    return signed_record(of, flow(f"flow{number}"), seq=seq, issued_at=now(), name=f"n{number}.example.com", **fields)


def goodbye(number, seq=1):
    of = identity(number)
    return sign_goodbye(Goodbye(peer_id=str(of.peer_id), seq=seq, at=now()), of)


async def eventually(true):
    for _ in range(SECONDS * 20):
        if await true():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not come true in time")


async def known(url):
    """What a registry knows: peer id → (seq, state)."""
    async with RegistryClient(url) as client:
        rows = (await client.nodes(pp=500)).result
        return {row["peer_id"]: (row["seq"], row["state"]) for row in rows}


def registry(home, **config):
    return Registry(RegistryConfig(home=home, port=0, mesh_s=0.5, **config))


async def test_what_one_learns_the_next_has_and_its_flows_are_found(tmp_path):
    async with (
        registry(tmp_path / "a") as a,
        registry(tmp_path / "b", mesh_read=(a.url,)) as b,
        RegistryClient(a.url) as at_a,
        RegistryClient(b.url) as at_b,
    ):
        node = identity(1)
        await at_a.up(announce(1))
        await eventually(lambda: _has(at_b, "flow1"))
        await at_a.state(sign_heartbeat(Heartbeat(peer_id=str(node.peer_id), seq=1, at=now()), node))
        assert (await at_b.record(str(node.peer_id))).seq == 1
        await at_a.down(goodbye(1))
        await eventually(lambda: _is(b.url, 1, (1, "offline")))
        assert await known(a.url) == await known(b.url)


async def _has(client, path):
    return path in [row["path"] for row in (await client.flows()).result]


async def _is(url, number, what):
    return (await known(url)).get(str(identity(number).peer_id)) == what


async def test_a_contributor_only_sends_its_own(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(registry(tmp_path / "other"))
        contributor = registry(tmp_path / "contributor")
        async with contributor:
            member = contributor.peer_id
        provider = await stack.enter_async_context(registry(tmp_path / "provider", mesh_members=frozenset({member})))
        contributor = await stack.enter_async_context(
            registry(tmp_path / "contributor", mesh_feed=(provider.url,), mesh_read=(other.url,))
        )
        async with RegistryClient(provider.url) as at, RegistryClient(contributor.url) as own:
            async with RegistryClient(other.url) as elsewhere:
                await elsewhere.up(announce(2))
            await eventually(lambda: _is(contributor.url, 2, (1, "online")))
            await own.up(announce(1))
            await at.up(announce(3))
            await eventually(lambda: _is(provider.url, 1, (1, "online")))
            assert str(identity(2).peer_id) not in await known(provider.url)
            assert str(identity(3).peer_id) not in await known(contributor.url)


async def test_a_provider_that_lost_its_file_is_told_again(tmp_path):
    async with registry(tmp_path / "contributor") as contributor:
        member = contributor.peer_id
    async with registry(tmp_path / "one", mesh_members=frozenset({member})) as provider:
        port = int(provider.url.rpartition(":")[2])
        async with registry(tmp_path / "contributor", mesh_feed=(provider.url,)) as contributor:
            async with RegistryClient(contributor.url) as own:
                await own.up(announce(1))
            await eventually(lambda: _is(provider.url, 1, (1, "online")))
            await provider.aclose()
            fresh = RegistryConfig(home=tmp_path / "two", port=port, mesh_s=0.5, mesh_members=frozenset({member}))
            async with Registry(fresh) as again:
                await eventually(lambda: _is(again.url, 1, (1, "online")))


rising = itertools.count()


async def bring(url, of, *items, since=0):
    said = {"peer_id": str(of.peer_id), "epoch": bytes(16), "since": since, "next": since, "more": False}
    return await bring_signed(url, sign(Brought(**said, items=items, at=now() + next(rising)), of))


async def bring_signed(url, signed):
    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/msgpack"}
        async with session.post(url + "/mesh", data=signed, headers=headers) as response:
            return response.status, await response.json(content_type=None)


def lie(number):
    signed = bytearray(announce(number))
    signed[-1] ^= 1
    return Item(origin=str(identity(200).peer_id), hops=1, record=bytes(signed))


async def test_strangers_bring_nothing_and_liars_are_cut_off(tmp_path):
    liar, stranger = identity(200), identity(201)
    config = {"mesh_members": frozenset({str(liar.peer_id)})}
    async with registry(tmp_path / "a", **config) as victim:
        status, body = await bring(
            victim.url, stranger, Item(origin=str(stranger.peer_id), hops=1, record=announce(1))
        )
        assert (status, body["reason"]) == (403, "not-a-member")
        honest = Item(origin=str(liar.peer_id), hops=1, record=announce(1))
        status, body = await bring(victim.url, liar, honest, lie(2))
        assert status == 200
        assert {name: body[name] for name in ("taken", "forged")} == {"taken": 1, "forged": 1}
        status, body = await bring(victim.url, liar, honest, honest)
        assert (status, body["taken"], body["known"]) == (200, 0, 2)
        status, body = await bring(victim.url, liar, *(lie(number) for number in range(3, 10)))
        assert (status, body["forged"]) == (200, 7)
        status, body = await bring(victim.url, liar, Item(origin=str(liar.peer_id), hops=1, record=announce(11)))
        assert (status, body["reason"]) == (429, "cut-off")
        assert list(await known(victim.url)) == [str(identity(1).peer_id)]


async def test_what_was_overheard_or_read_from_a_member_cannot_be_brought(tmp_path):
    async with registry(tmp_path / "member") as member, RegistryClient(member.url) as at_member:
        await at_member.up(announce(1))
        read = await at_member.records(0, None, 0)
        async with registry(tmp_path / "victim", mesh_members=frozenset({member.peer_id})) as victim:
            status, body = await bring_signed(victim.url, read)
            assert (status, body["reason"]) == (400, "malformed")
    of = identity(200)
    said = {"peer_id": str(of.peer_id), "epoch": bytes(16), "since": 0, "next": 0, "more": False, "items": ()}
    async with registry(tmp_path / "other", mesh_members=frozenset({str(of.peer_id)})) as victim:
        signed = sign(Brought(**said, at=now()), of)
        assert (await bring_signed(victim.url, signed))[0] == 200
        for again in (signed, *(sign(Brought(**said, at=now() + late), of) for late in (-400_000, 400_000))):
            status, body = await bring_signed(victim.url, again)
            assert (status, body["reason"]) == (400, "stale-batch")


async def test_who_answers_under_the_address_of_another_is_not_read(tmp_path, caplog):
    async with registry(tmp_path / "a") as a:
        port = int(a.url.rpartition(":")[2])
        async with registry(tmp_path / "b", mesh_read=(a.url,)) as b:
            async with RegistryClient(a.url) as at_a:
                await at_a.up(announce(1))
            await eventually(lambda: _is(b.url, 1, (1, "online")))
            await a.aclose()
            async with Registry(RegistryConfig(home=tmp_path / "impostor", port=port)) as impostor:
                async with RegistryClient(impostor.url) as at:
                    await at.up(announce(2))

                async def refused():
                    return any("now is" in each.getMessage() for each in caplog.records)

                await eventually(refused)
            assert str(identity(2).peer_id) not in await known(b.url)


class Wire:
    """A TCP relay that can be cut: connections end, and new ones are refused."""

    def __init__(self):
        self.target = None
        self.cut = False
        self._open = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        self.sever()
        self._server.close()
        await self._server.wait_closed()

    def sever(self):
        self.cut = True
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader, writer):
        if self.cut or self.target is None:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except asyncio.CancelledError:
            pass
        finally:
            for each in (writer, far_writer):
                each.transport.abort()
                self._open.discard(each)


async def _pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


class Process:
    """`koco registry` in a process of its own."""

    def __init__(self, home, *words, port=0):
        self.home, self.words = home, words
        self.start(port)

    def start(self, port):
        command = [KOCO, "registry", "--json", "--port", str(port), "--mesh-interval", "0.5", *self.words]
        self.process = subprocess.Popen(
            command,
            env=environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, "the registry did not start"
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rpartition(":")[2])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.parametrize("seed", [20261122])
async def test_five_in_a_ring_agree_after_kills_and_partitions(tmp_path, seed):
    chance = random.Random(seed)
    print(f"seed {seed}")
    async with contextlib.AsyncExitStack() as stack:
        wires = {
            (reader, read): await stack.enter_async_context(Wire())
            for reader in range(5)
            for read in ((reader - 1) % 5, (reader + 1) % 5)
        }
        ring = []
        for number in range(5):
            urls = [wire.url for (reader, _), wire in wires.items() if reader == number]
            words = [word for url in urls for word in ("--mesh-read", url)]
            ring.append(await asyncio.to_thread(Process, tmp_path / str(number), *words))
            stack.callback(ring[number].kill)
        for (_, read), wire in wires.items():
            wire.target = ring[read].port
        seqs = {}
        for round_ in range(4):
            victim = chance.randrange(5)
            ring[victim].kill()
            cut = chance.sample(sorted(wires), 3)
            for edge in cut:
                wires[edge].sever()
            for _ in range(6):
                number, at = chance.randrange(1, 9), chance.choice([n for n in range(5) if n != victim])
                seqs[number] = seqs.get(number, 0) + 1
                async with RegistryClient(ring[at].url) as client:
                    # A name is bound where it was first heard; the record itself is what travels.
                    await client.up(announce(number, seqs[number]))
            gone = min(seqs) if round_ == 3 else None
            if gone is not None:
                seqs[gone] += 1
                async with RegistryClient(ring[at].url) as client:
                    await client.up(announce(gone, seqs[gone]))
                    await client.down(goodbye(gone, seqs[gone]))
            await asyncio.to_thread(ring[victim].start, ring[victim].port)
            for edge in cut:
                wires[edge].cut = False
            states = {
                str(identity(number).peer_id): (seq, "offline" if number == gone else "online")
                for number, seq in seqs.items()
            }
            for each in ring:
                await eventually(lambda each=each, states=states: _knows(each.url, states))


async def _knows(url, states):
    return await known(url) == states


async def test_one_that_answers_nonsense_ends_no_dealings_and_is_not_asked_in_a_circle(tmp_path):
    liar, asked = identity(200), []
    answers = [{"retry_after_s": 10**400}, None, None, None]

    async def records(request):
        asked.append(request.query["since"])
        refusal = answers[min(len(asked), len(answers)) - 1]
        if refusal is not None:
            return web.json_response({"reason": "busy", **refusal}, status=503)
        batch = Batch(peer_id=str(liar.peer_id), epoch=bytes(16), since=0, next=0, more=False, items=())
        return web.Response(body=sign(batch, liar), content_type="application/msgpack")

    app = web.Application()
    app.router.add_get("/records", records)
    async with TestServer(app) as server, registry(tmp_path / "a") as a:
        url = str(server.make_url("/"))
        async with registry(tmp_path / "b", mesh_read=(url, a.url)) as b, RegistryClient(a.url) as at_a:

            async def answered():
                return len(asked) >= 3

            await eventually(answered)
            before = len(asked)
            for number in range(1, 4):
                await at_a.up(announce(number))
                await eventually(lambda number=number: _is(b.url, number, (1, "online")))
            assert len(asked) - before < 20


async def test_a_member_that_is_no_peer_id_is_told_at_the_start(tmp_path):
    with pytest.raises(UsageError, match="not a peer id"):
        async with registry(tmp_path / "a", mesh_members=frozenset({"a registry"})):
            pass


async def test_an_operator_adds_and_removes_registries_while_it_runs(tmp_path):
    home = tmp_path / "here"
    async with registry(home) as here:
        own = here.peer_id
    # The other one has users: it lets the members of its mesh read.
    async with registry(tmp_path / "there", auth="local", mesh_members={own}) as there:
        async with registry(home) as here, RegistryClient(there.url) as at_there, RegistryClient(here.url) as at_here:
            await at_there.up(announce(1))
            claimant = Claimant(load_identity(home, "user"))
            async with OperatorClient(here.url, claimant) as operator:
                for url in ("ftp://x", "nonsense", "http://", "http://h/?q"):
                    with pytest.raises(CallError, match="bad-args"):
                        await operator.add_to_mesh(url)
                assert await operator.add_to_mesh(there.url + "/") == {"url": there.url, "does": "read"}
                await operator.add_to_mesh(there.url)
                await eventually(lambda: _has(at_here, "flow1"))
                assert (await operator.mesh())["result"] == [{"url": there.url, "does": "read"}]
        async with registry(home) as here, RegistryClient(there.url) as at_there, RegistryClient(here.url) as at_here:
            await at_there.up(announce(2))
            await eventually(lambda: _has(at_here, "flow2"))
            async with OperatorClient(here.url, claimant) as operator:
                await operator.add_to_mesh(there.url, feed=True)
                await at_here.up(announce(3))
                await eventually(lambda: _lists(operator_of(there), "n3.example.com"))
                assert await operator.remove_from_mesh(there.url) == {"url": there.url, "removed": True}
                with pytest.raises(CallError, match="no-such-registry"):
                    await operator.remove_from_mesh(there.url)
                assert (await operator.mesh())["result"] == []
                assert [line["what"] for line in (await operator.audit())["result"]][:2] == [
                    "mesh-remove",
                    "mesh-add",
                ]
            await at_there.up(announce(4))
        async with registry(home) as here, RegistryClient(here.url) as at_here:
            assert {row["name"] for row in (await at_here.nodes()).result} == {
                f"n{number}.example.com" for number in (1, 2, 3)
            }


def operator_of(running):
    claimant = Claimant(load_identity(running.config.home, "user"))
    return RegistryClient(running.url, claimant=claimant)


async def _lists(client, name):
    async with client:
        return name in {row["name"] for row in (await client.nodes()).result}
