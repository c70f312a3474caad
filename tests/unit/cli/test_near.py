"""Commands that ask all nodes nearby, beside one that answers badly: what the others say is shown all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kodo.cli import find, outputs, running, shares
from kodo.cli.runtime import Context
from kodo.client import Client, RunSelection, peer
from kodo.client.config import load_settings
from kodo.client.near import ASK_SECONDS
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError
from kodo.p2p.net.calls import CALL_PROTOCOL, Request
from kodo.p2p.net.stream import Stream
from tests.support.virtual_time import run_virtual
from tests.support.world import FID, World

FIELDS = (
    *("fid", "lid", "sid", "path", "name", "state", "own", "progress", "queue_position", "error", "runtime_s"),
    *("created", "expires_at", "title", "downloads", "done", "to", "link", "level", "mode", "description", "broken"),
    *("author", "release", "tags", "node", "peer_id", "addrs", "source"),
)
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**63 - 1, math.nan, math.inf, "", "\x1b[2J\x00\u202e", "x" * 10_000, b"\xff"),
    *([], {}, [[]], [None], {"users": 5, "roles": {"a": 1}}, {"percent": math.nan, "done": [], "text": {}}),
]


def says(answer: Any) -> Callable[[Request], Awaitable[Any]]:
    async def give(request: Request) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return give


async def is_silent(request: Request) -> Any:
    await asyncio.Event().wait()


async def drips(request: Request) -> Any:
    while True:
        await request.send(b"x")
        await asyncio.sleep(1)


async def sends_items(request: Request) -> Any:
    await request.send({"result": []})
    return {"result": []}


async def breaks_off(request: Request) -> Any:
    request.abort()


async def hangs_up(request: Request) -> Any:
    await request.session.aclose()


async def has_no_end(request: Request) -> Any:
    return {"result": [{"fid": FID[:-1] + "0"}] * 500, "total_pages": 2**62}


async def asks_for_ever_smaller_pages(request: Request) -> Any:
    raise CallError(413, "page-too-large", "", {"pp": max(int(request.args.get("pp", 1)) - 1, 0)})


BAD: dict[str, Callable[[Request], Awaitable[Any]]] = {
    **{f"refuses {code}": says(CallError(code, "no", "\x1b[2Jno")) for code in (400, 401, 403, 404, 429, 500, 503)},
    **{f"answers {value!r:.30}": says(value) for value in VALUES},
    **{f"gives rows {value!r:.30}": says({"result": value, "total_pages": 1}) for value in VALUES},
    **{f"has pages {value!r:.30}": says({"result": [{}] * 500, "total_pages": value}) for value in VALUES},
    **{
        f"fills rows with {value!r:.30}": says({"result": [dict.fromkeys(FIELDS, value)], "total_pages": 1})
        for value in VALUES
    },
    **{each.__name__: each for each in (is_silent, drips, sends_items, breaks_off, hangs_up, has_no_end)},
    "asks_for_ever_smaller_pages": asks_for_ever_smaller_pages,
}


class Here(Context):
    """A command in a terminal, with a client that is open already."""

    def __init__(self, client: Client, *, json: bool):
        super().__init__(load_settings(client.home, {}), json=json, verbose=False)
        self._client = client

    def client(self, **options: Any) -> Any:
        return contextlib.nullcontext(self._client)


async def command(name: str, context: Context) -> None:
    match name:
        case "nodes":
            await find.nodes(context)
        case "flows":
            await find.flows(context, search="*")
        case "show":
            await find.show(context, "Competitor Analysis")
        case "run":
            await running.run(context, "Competitor Analysis", ["topic=x"], detach=True)
        case "ps":
            await running.ps(context, RunSelection())
        case "locks":
            await running.locks(context)
        case "shares":
            await shares.shares(context)
        case "unshare":
            await shares.unshare(context, FID)
        case "state":
            await running.state(context, FID)
        case "outputs":
            await outputs.outputs(context, FID)


COMMANDS = ["nodes", "flows", "show", "run", "ps", "locks", "shares", "unshare", "state", "outputs"]

TITLE = "an honest row"

HONEST: Mapping[str, Any] = {
    "run.list": {"result": [{"fid": FID, "name": TITLE, "state": "locked"}]},
    "lock.list": {"result": [{"fid": FID, "lid": FID, "title": TITLE}]},
    "share.list": {"result": [{"fid": FID, "sid": FID, "name": TITLE}]},
    "share.revoke": {"fid": FID, "sid": FID, "revoked": True},
}


async def all_commands(world: World, home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Give what each command writes, for people and as JSON."""
    written = {}
    async with world.client(home, confirm_node=lambda *_: True) as client:
        for name in COMMANDS:
            texts = []
            for as_json in (False, True):
                await command(name, Here(client, json=as_json))
                texts.append(capsys.readouterr().out)
                # What one command learned does not help the next.
                for path in (client.known.path, home / "known_runs"):
                    path.unlink(missing_ok=True)
            written[name] = (texts[0], texts[1])
    return written


def shown(world: World, home: Path, bad: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    async def run() -> dict[str, tuple[str, str]]:
        world.service.answers.update(HONEST)
        async with world.host:
            await world.host.listen(["10.0.0.1"], 4711)
            world.claim("n.example")
            async with world.stranger(1, "a.example", says(None) if bad is None else bad) as stranger:
                if bad is None:
                    stranger.handle(CALL_PROTOCOL, garbage)
                return await all_commands(world, home, capsys)

    return run_virtual(run())


async def garbage(stream: Stream) -> None:
    """Answer with bytes that are no frames."""
    await stream.write(b"\xff" * 4096)
    await stream.aclose()


def check(written: dict[str, tuple[str, str]]) -> None:
    for text, lines in written.values():
        assert "\x1b" not in text + lines
        for each in lines.splitlines():
            json.loads(each)
    assert "n.example" in written["nodes"][0]
    assert "n.example/flows.market.Competitor" in written["flows"][0]
    assert "n.example/flows.market.Competitor" in written["show"][0]
    assert FID in written["run"][0]
    for name in ("ps", "locks", "shares"):
        assert TITLE in written[name][0]
        assert TITLE in written[name][1]
    assert json.loads(written["unshare"][1])["revoked"] is True
    assert json.loads(written["state"][1])["fid"] == FID
    assert "x.bin" in written["outputs"][0]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # As bad in small: what has no end is cut off here, and what shrinks by one has nothing left, somewhat sooner.
    monkeypatch.setattr(peer, "MAX_ROWS", 3000)
    monkeypatch.setattr(peer, "MAX_PAGE", 20)
    for name in ("KODO_HOME", "KODO_REGISTRY", "KODO_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kind", BAD)
def test_a_node_that_answers_badly_breaks_no_listing(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(shown(World(), tmp_path, BAD[kind], capsys))


def test_a_node_that_sends_no_frames_breaks_no_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(shown(World(), tmp_path, None, capsys))


def test_many_silent_nodes_hold_a_listing_up_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    async def run() -> float:
        world.service.answers.update(HONEST)
        async with world.host:
            await world.host.listen(["10.0.0.1"], 4711)
            world.claim("z.example")
            [there] = world.place.found
            async with world.stranger(1, "a.example", is_silent):
                found = world.place.found[-1]
                # Peer ids that nobody answers for, as anybody may announce them.
                for number in range(300):
                    ghost = Identity.from_seed(number.to_bytes(32)).peer_id
                    addresses = tuple(address.with_peer(ghost) for address in found.addresses)
                    world.place.found.append(replace(found, peer_id=ghost, addresses=addresses))
                world.place.found.remove(there)
                world.place.found.append(there)
                before = asyncio.get_running_loop().time()
                async with world.client(tmp_path) as client:
                    client.known.pin("z.example", world.host.peer_id)
                    assert [row["fid"] for row in await client.runs()] == [FID]
                return asyncio.get_running_loop().time() - before

    with caplog.at_level(logging.ERROR):
        assert run_virtual(run()) <= 2 * ASK_SECONDS


def test_what_all_nodes_refuse_is_the_callers_mistake(tmp_path: Path) -> None:
    world = World()

    async def run() -> None:
        refusal = CallError(400, "bad-argument", "by: no such field")
        async with world.stranger(1, "a.example", says(refusal)), world.client(tmp_path) as client:
            with pytest.raises(CallError, match="no such field"):
                [row async for row in client.flows(by="nothing asc")]

    run_virtual(run())
