"""What is refused before another node is dialled, and on whose behalf runs are launched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from kodo.access.null import NullProvider
from kodo.client.client import Client
from kodo.node.requests import delegation
from kodo.node.requests.delegation import Delegations
from kodo.node.runs.flow_requests import Question
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, NotFoundError, UsageError
from kodo.protocol.access import Grant, Principal, account_of
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.service_rig import LID, PEER, node_of

CHAIN = [{"peer_id": f"peer{number}", "fid": fid_of(number)} for number in range(8)]


class Provider(NullProvider):
    async def recall(self, principal: str) -> Principal:
        return Principal(principal, principal, grants=(Grant("node", "near.*"),))


class DialledError(Exception):
    """Another node would have been asked."""


def dial() -> Client:
    raise DialledError


@pytest.fixture
async def delegations(tmp_path: Path, store: Store, clock: StillClock) -> AsyncIterator[Delegations]:
    chains: dict[str, list[dict[str, str]]] = {fid_of(1): CHAIN[:7], fid_of(2): CHAIN}
    async with Delegations(
        dial,
        Provider("home"),
        "peer-of-node",
        seal=lambda value: hashlib.sha256(b"key" + msgpack.packb(value)).digest(),
        chain_of=lambda fid: chains[fid],
        folder=tmp_path / "delegated",
        store=store,
        clock=clock,
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
        (
            question("answer", run={"node": "n", "peer_id": "p", "fid": "f", "seal": ""}, lid=LID, candidate=1),
            CallError,
            "404",
        ),
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
        await node.call("run.stream", "peer7", fid=fid, behalf=CHAIN[7]["fid"])
        assert node.items[1]["data"]["chain"] == CHAIN
        assert (await node.refused("run.launch", "ana", chain=CHAIN, **launch)).reason == "not-yours"
        assert (await node.refused("run.launch", "peer7", chain=[*CHAIN, CHAIN[7]], **launch)).reason == "bad-args"
        here = {"peer_id": (await node.call("node.state"))["peer_id"], "fid": fid}
        refused = await node.refused("run.launch", "peer7", chain=[here, CHAIN[7]], **launch)
        assert (refused.code, refused.reason) == (409, "cycle")
        other = {"path": "flows.ask", "inputs": {"n": 1}}
        assert "fid" in await node.call("run.launch", peer="peer7", chain=[here, CHAIN[7]], **other)


async def test_what_a_run_launched_is_nothing_to_another_run_of_the_same_node(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        launch: dict[str, Any] = {"path": "flows.ask", "inputs": {"n": 1}, "key": "k"}
        mine, other = fid_of(1), fid_of(2)
        chains = {each: [{"peer_id": "far", "fid": each}] for each in (mine, other)}
        fid = (await node.call("run.launch", "far", chain=chains[mine], **launch))["fid"]
        assert (await node.call("run.launch", "far", chain=chains[mine], **launch))["fid"] == fid
        assert (await node.call("run.launch", "far", chain=chains[other], **launch))["fid"] != fid
        assert (await node.call("run.launch", "far", **launch))["fid"] != fid
        for peer, behalf in (("far", {"behalf": other}), ("far", {}), ("ana", {"behalf": mine})):
            asked = {"fid": fid, **behalf}
            for op in ("run.state", "run.stream", "run.kill", "output.list", "run.share"):
                more = {"link": True} if op == "run.share" else {}
                assert (await node.refused(op, peer, **asked, **more)).reason == "no-such-run"
            answer = {**asked, "lid": LID, "candidate": True}
            assert (await node.refused("lock.answer", peer, **answer)).reason == "no-such-run"
        assert (await node.call("run.state", "far", fid=fid, behalf=mine))["own"]
        assert fid not in {row["fid"] for row in (await node.call("run.list", "far"))["result"]}
        assert (await node.call("run.kill", "far", fid=fid, behalf=mine))["state"] == "error"


async def test_a_restart_is_on_the_same_behalf_or_ones_own(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        asked = await node.call("run.launch", path="flows.ask", inputs={"n": 1})
        here, there = {"peer_id": str(PEER), "fid": asked["fid"]}, {"peer_id": "far", "fid": fid_of(1)}
        chain = [here, there]
        first = (await node.call("run.launch", "far", path="flows.work", inputs={"n": 1}, chain=chain))["fid"]
        assert (await node.refused("run.restart", "far", fid=first)).reason == "no-such-run"
        again = (await node.call("run.restart", "far", fid=first, behalf=fid_of(1)))["fid"]
        assert (await node.refused("run.state", "far", fid=again)).reason == "no-such-run"
        assert (await node.call("run.state", "far", fid=again, behalf=fid_of(1)))["own"]
        assert (await node.rig.until(again, "flow")).data["chain"] == chain
        to = {"users": ["bob"], "roles": []}
        await node.call("run.share", "far", fid=again, behalf=fid_of(1), to=to, mode="x")
        his = (await node.call("run.restart", "bob", fid=again))["fid"]
        assert (await node.call("run.state", "bob", fid=his))["own"]
        assert "chain" not in (await node.rig.until(his, "flow")).data
        assert (await node.refused("run.state", "far", fid=his, behalf=fid_of(1))).reason == "no-such-run"


async def test_however_many_runs_a_node_says_it_acts_for_its_bound_is_one(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, bounds={"max_live_each": 3}) as node:
        for number in range(3):
            chain = [{"peer_id": "far", "fid": fid_of(number)}]
            await node.call("run.launch", "far", path="flows.ask", inputs={"n": 1}, chain=chain)
        chain = [{"peer_id": "far", "fid": fid_of(9)}]
        refused = await node.refused("run.launch", "far", path="flows.ask", inputs={"n": 1}, chain=chain)
        assert refused.reason == "busy"


def test_who_pays_is_told_from_an_id_and_cannot_be_forged_by_a_name() -> None:
    asked = Principal("oidc:ana/x", "p").on_behalf(fid_of(1))
    assert account_of(asked.id) == "oidc:ana/x"
    for name in ("ana", f"oidc:ana/{fid_of(1)}", f"{fid_of(1)}", "ana/bob"):
        assert account_of(name) == name


class Away:
    """In the place of a client: finds the node of the other run only when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.found = asyncio.Event()
        self.settings = SimpleNamespace(patience_s=1.0)

    async def __aenter__(self) -> Any:
        self.asked.release()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def node(self, name: str) -> Any:
        self.asked.release()
        await self.found.wait()
        return SimpleNamespace(peer_id="p", on_behalf=lambda fid: SimpleNamespace(peer_id="p"))

    async def find_flow(self, name: str) -> Any:
        self.asked.release()
        await self.found.wait()
        raise NotFoundError("there is no such flow")


async def test_what_a_run_asks_about_another_at_once_is_about_one_and_the_same(delegations: Delegations) -> None:
    away = Away()
    delegations._make_client = lambda: away  # type: ignore[assignment, return-value]
    handle = {"node": "near.x", "peer_id": "p", "fid": fid_of(5)}
    asked = question("events", run={**handle, "seal": delegations._sealed(fid_of(1), handle)}, after=0)
    both = [asyncio.create_task(delegations._child(asked)) for _ in range(2)]
    for _ in range(3):
        await away.asked.acquire()
    away.found.set()
    first, second = await asyncio.gather(*both)
    assert first is second


async def test_launches_that_are_under_way_count(delegations: Delegations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "_MAX_CHILDREN", 1)
    away = Away()
    delegations._make_client = lambda: away  # type: ignore[assignment, return-value]
    launch = question("launch", flow="near.x/f", inputs={})
    first = asyncio.create_task(delegations.answer(launch))
    for _ in range(2):
        await away.asked.acquire()
    with pytest.raises(CallError, match="429 busy"):
        await delegations.answer(launch)
    away.found.set()
    for again in (first, delegations.answer(launch)):
        with pytest.raises(NotFoundError):
            await again
