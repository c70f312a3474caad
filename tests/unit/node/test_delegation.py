"""What is refused before another node is dialled, and on whose behalf runs are launched."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kodo.access.null import NullProvider
from kodo.client.client import Client
from kodo.node.asking import Question
from kodo.node.delegation import Delegations
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import Grant, Principal
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.service_rig import node_of

CHAIN = [{"peer_id": f"peer{number}", "fid": fid_of(number)} for number in range(8)]


class Provider(NullProvider):
    async def recall(self, principal: str) -> Principal:
        return Principal(principal, principal, grants=(Grant("node", "near.*"),))


class DialledError(Exception):
    """Another node would have been asked."""


def dial() -> Client:
    raise DialledError


@pytest.fixture
async def delegations(tmp_path: Path) -> AsyncIterator[Delegations]:
    chains: dict[str, list[dict[str, str]]] = {fid_of(1): CHAIN[:7], fid_of(2): CHAIN}
    async with Delegations(
        dial,
        Provider("home"),
        "peer-of-node",
        seal=lambda value: hashlib.sha256(b"key" + msgpack.packb(value)).digest(),
        chain_of=lambda fid: chains[fid],
        folder=tmp_path / "delegated",
    ) as made:
        yield made


def question(op: str, fid: str = fid_of(1), **args: Any) -> Question:
    return Question(fid, "flows.a", "ana", 1, 1, f"delegate.{op}", args)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (question("launch", flow="near.x/f", inputs={}), DialledError, "^$"),
        (question("launch", fid_of(2), flow="near.x/f", inputs={}), CallError, "409 too-deep"),
        (question("launch", flow="far.x/f", inputs={}), CallError, "403 not-granted"),
        (question("launch", flow="f", inputs={}), UsageError, "NODE/PATH"),
        (question("launch", flow=3, inputs={}), UsageError, "NODE/PATH"),
        (question("launch", flow="near.x/f", inputs=3), UsageError, "inputs by name"),
        (question("launch"), UsageError, "KeyError"),
        (question("events", run={"node": "n", "peer_id": "p", "fid": "f", "seal": "00"}, after=0), CallError, "404"),
        (question("events", run=3, after=0), UsageError, "TypeError"),
        (question("read", run={"node": "n", "peer_id": "p", "fid": "f", "seal": ""}, name="x"), CallError, "404"),
        (question("explode"), CallError, "no-such-op"),
    ],
)
async def test_what_may_not_be_is_refused(
    delegations: Delegations, asked: Question, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await delegations.answer(asked)


async def test_a_handle_is_good_for_the_run_that_got_it_only(delegations: Delegations) -> None:
    handle = {"node": "near.x", "peer_id": "p", "fid": fid_of(5)}
    sealed = {**handle, "seal": delegations._sealed(fid_of(1), handle)}
    with pytest.raises(DialledError):
        await delegations.answer(question("events", run=sealed, after=0))
    for other, run in ((fid_of(2), sealed), (fid_of(1), {**sealed, "fid": fid_of(6)})):
        with pytest.raises(CallError, match="404"):
            await delegations.answer(question("events", other, run=run, after=0))


async def test_a_launch_says_on_whose_behalf_it_is_and_may_not_lie(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        launch: dict[str, Any] = {"path": "flows.work", "inputs": {"n": 1}}
        fid = (await node.call("run.launch", peer="peer7", chain=CHAIN, **launch))["fid"]
        await node.call("run.stream", "peer7", fid=fid)
        assert node.items[1]["data"]["chain"] == CHAIN
        assert (await node.refused("run.launch", "ana", chain=CHAIN, **launch)).reason == "not-yours"
        assert (await node.refused("run.launch", "peer7", chain=[*CHAIN, CHAIN[7]], **launch)).reason == "bad-args"
        here = {"peer_id": (await node.call("node.state"))["peer_id"], "fid": fid}
        refused = await node.refused("run.launch", "peer7", chain=[here, CHAIN[7]], **launch)
        assert (refused.code, refused.reason) == (409, "cycle")
        other = {"path": "flows.ask", "inputs": {"n": 1}}
        assert "fid" in await node.call("run.launch", peer="peer7", chain=[here, CHAIN[7]], **other)
