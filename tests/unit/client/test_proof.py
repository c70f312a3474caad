"""What the client sends, to whom, and what proves that it is the one that is meant: the table in client/README.md.

Beside the node that is meant stands a liar: it is nearby, comes first by name, and claims whatever it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client
from kodo.client.logins import Login
from kodo.client.peer import RemoteNode
from kodo.client.run import Run
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, UnreachableError
from kodo.p2p.net.calls import Request
from kodo.p2p.net.host import Host
from kodo.protocol.link import Link, encode_token, write_link
from tests.support.world import FID, World

SECRET = "the secret"
OTHER = "0" * 26


class Liar:
    """Claims every run, flow and share, and keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.host: Host

    @property
    def peer_id(self) -> PeerId:
        return self.host.peer_id

    @property
    def heard(self) -> str:
        return str(self.calls)

    async def __call__(self, request: Request) -> Any:
        self.calls.append((request.op, request.args))
        match request.op:
            case "flow.schema":
                return {"path": request.args["path"], "name": "n", "schema": {"type": "object"}}
            case "flow.list":
                return {"result": [{"path": "flows.lie", "name": "Lie"}, {"path": "gone.example/flow"}]}
            case "run.list":
                return {"result": [{"fid": FID, "state": "locked"}, {"fid": OTHER}], "total_pages": 1}
        return {"fid": request.args.get("fid", OTHER), "state": "locked", "unlock": {}, "sid": OTHER, "user": "ana"}


@pytest.fixture
async def liar(world: World) -> AsyncIterator[Liar]:
    liar = Liar()
    async with world.stranger(1, "a.example", liar) as liar.host:
        yield liar


async def answer(client: Client, run: str) -> PeerId:
    found = await client.run(run)
    await found.answer(FID, SECRET)
    return found.peer_id


def went_to_the_node(world: World) -> bool:
    return world.service.calls[-1][1].get("candidate") == SECRET


async def test_an_answer_goes_to_the_node_that_took_the_launch(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        await client.launch("n.example/flows.b")
    async with world.client(tmp_path) as client:
        assert await answer(client, FID) == world.host.peer_id
    assert went_to_the_node(world)
    assert liar.calls == []


async def test_an_answer_goes_to_the_node_that_the_run_was_followed_on(
    world: World, liar: Liar, tmp_path: Path
) -> None:
    async with world.client(tmp_path) as client:
        await (await client.run(f"n.example/{FID}")).wait()
        assert await answer(client, FID) == world.host.peer_id
    assert SECRET not in liar.heard


async def test_an_answer_goes_to_the_node_whose_link_was_opened(world: World, liar: Liar, tmp_path: Path) -> None:
    link = write_link(encode_token(Link(world.host.peer_id, FID, b"s" * 16, tuple(world.host.addresses()))))
    world.service.answers["share.open"] = {"fid": FID}
    async with world.client(tmp_path) as client:
        await client.get(link)
        assert await answer(client, FID) == world.host.peer_id
    assert SECRET not in liar.heard


async def test_a_run_that_was_restarted_is_on_the_same_node(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        await (await client.run(f"n.example/{FID}")).restart()
        assert (await client.run(OTHER)).peer_id == world.host.peer_id
    assert liar.calls == []


async def test_an_answer_goes_to_the_named_node_that_listed_the_run(world: World, liar: Liar, tmp_path: Path) -> None:
    world.service.answers["run.list"] = {"result": [{"fid": FID}]}
    async with world.client(tmp_path) as client:
        await client.runs("n.example")
        await client.runs()
        assert await answer(client, FID) == world.host.peer_id
    assert SECRET not in liar.heard


async def test_a_listing_of_a_node_that_nobody_named_proves_nothing(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        assert OTHER in {row["fid"] for row in await client.runs()}
        with pytest.raises(IdentityError):
            await answer(client, OTHER)


@pytest.mark.parametrize("agrees", [None, False])
async def test_a_run_that_one_unproved_node_claims_is_refused_by_name_and_peer_id(
    world: World, liar: Liar, tmp_path: Path, agrees: bool | None
) -> None:
    asked: list[str] = []

    def confirm(remote: RemoteNode, claim: str) -> bool:
        asked.append(f"{remote} {remote.peer_id} {claim}")
        return bool(agrees)

    async with world.client(tmp_path, confirm_node=None if agrees is None else confirm) as client:
        with pytest.raises(IdentityError, match=f"{liar.peer_id}/{OTHER}"):
            await answer(client, OTHER)
    assert asked == ([] if agrees is None else [f"a.example {liar.peer_id} claims to have the run {OTHER}"])
    assert {op for op, _ in liar.calls} == {"run.state"}


async def test_a_run_that_one_node_claims_is_there_once_the_user_agreed(world: World, tmp_path: Path) -> None:
    asked: list[PeerId] = []

    def confirm(remote: RemoteNode, claim: str) -> bool:
        asked.append(remote.peer_id)
        return True

    async with world.client(tmp_path, confirm_node=confirm) as client:
        for _ in range(2):
            assert await answer(client, FID) == world.host.peer_id
    assert asked == [world.host.peer_id]


async def test_a_run_that_several_nodes_claim_is_refused_whatever_the_user_says(
    world: World, liar: Liar, tmp_path: Path
) -> None:
    async with world.client(tmp_path, confirm_node=lambda *_: True) as client:
        with pytest.raises(IdentityError, match=f"NODE/{FID}"):
            await answer(client, FID)
    assert SECRET not in liar.heard + str(world.service.calls)


async def test_a_name_that_leads_to_another_node_than_the_runs_is_refused(
    world: World, liar: Liar, tmp_path: Path
) -> None:
    async with world.client(tmp_path) as client:
        await client.launch("n.example/flows.b")
        with pytest.raises(IdentityError, match=f"{liar.peer_id}/{FID}"):
            await answer(client, f"a.example/{FID}")
        assert await answer(client, f"{liar.peer_id}/{FID}") == liar.peer_id  # the user's own word
        assert await answer(client, FID) == world.host.peer_id


async def test_a_run_whose_node_is_away_is_nowhere_else(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        await client.launch("n.example/flows.b")
    await world.leave()
    async with world.client(tmp_path) as client:
        with pytest.raises(UnreachableError):
            await answer(client, FID)
    assert liar.calls == []


@pytest.mark.parametrize("flow", ["Lie", "flows.lie", "gone.example/flow"])
async def test_inputs_do_not_go_to_whichever_node_claims_a_flow(
    world: World, liar: Liar, tmp_path: Path, flow: str
) -> None:
    document = tmp_path / "secret.txt"
    document.write_text(SECRET)
    async with world.client(tmp_path / "home") as client:
        for given in (SECRET, document):
            with pytest.raises(IdentityError, match=str(liar.peer_id)):
                await client.launch(flow, text=given)
    assert SECRET not in liar.heard
    assert not {"run.launch", "input.write"} & {op for op, _ in liar.calls}


async def test_a_launch_without_inputs_proves_nothing_for_the_next(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        await client.launch("flows.lie")
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await client.launch("flows.lie", text=SECRET)
        assert client.known.all() == {}
    assert SECRET not in liar.heard


async def give(client: Client, run: Run, what: str, file: Path) -> None:
    match what:
        case "answer":
            await run.answer(FID, SECRET)
        case "share":
            await run.share(f"user:{SECRET}")
        case "restart":
            await run.restart()
        case "file":
            await client.upload(file, node=run.node)


@pytest.mark.parametrize("what", ["answer", "share", "restart", "file"])
async def test_a_run_that_was_launched_without_inputs_where_a_node_claims_the_flow_gets_nothing_private(
    world: World, liar: Liar, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "secret.txt"
    file.write_text(SECRET)
    async with world.client(tmp_path / "home") as client:
        run = await client.launch("flows.lie")
        await run.state()
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await give(client, run, what, file)
    assert {op for op, _ in liar.calls} <= {"flow.list", "flow.schema", "run.launch", "run.state"}


async def test_a_bare_fid_of_a_launch_that_nobody_was_asked_about_is_asked_about(
    world: World, liar: Liar, tmp_path: Path
) -> None:
    async with world.client(tmp_path) as client:
        await (await client.launch("flows.lie")).state()
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await answer(client, OTHER)
    async with world.client(tmp_path) as client:
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await answer(client, OTHER)
    assert SECRET not in liar.heard


async def test_an_unproved_launch_does_not_take_over_a_run_of_another_node(
    world: World, liar: Liar, tmp_path: Path
) -> None:
    async with world.client(tmp_path, confirm_node=lambda *_: True) as client:
        await (await client.run(f"n.example/{FID}")).restart()
        with pytest.raises(IdentityError, match=str(world.host.peer_id)):
            await (await client.launch("flows.lie")).answer(FID, SECRET)
        assert (await client.run(OTHER)).peer_id == world.host.peer_id
    assert SECRET not in liar.heard


async def test_a_launch_without_inputs_is_asked_about_once_before_its_first_answer(
    world: World, tmp_path: Path
) -> None:
    asked: list[str] = []

    def confirm(remote: RemoteNode, claim: str) -> bool:
        asked.append(claim)
        return True

    async with world.client(tmp_path, confirm_node=confirm) as client:
        run = await client.launch("Competitor Analysis")
        assert asked == []
        for _ in range(2):
            await run.answer(FID, SECRET)
    async with world.client(tmp_path) as client:
        assert await answer(client, FID) == world.host.peer_id
    assert asked == [f"claims to have the run {FID}"]


async def test_inputs_go_to_a_node_that_was_named_before(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        await (await client.node("n.example")).request("flow.list")
        await client.launch("Competitor Analysis", topic=SECRET)
    assert world.service.calls[-1][1]["inputs"] == {"topic": SECRET}


async def test_inputs_go_where_the_user_agreed_and_it_is_asked_once(world: World, tmp_path: Path) -> None:
    asked: list[str] = []

    def confirm(remote: RemoteNode, claim: str) -> bool:
        asked.append(claim)
        return True

    for _ in range(2):
        async with world.client(tmp_path, confirm_node=confirm) as client:
            await client.launch("Competitor Analysis", topic=SECRET)
    assert asked == ["claims to offer the flow flows.market.Competitor"]


async def test_a_password_does_not_go_to_whoever_claims_a_new_name(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await client.login("a.example", name="ana", password=SECRET)
    assert SECRET not in liar.heard


async def test_the_code_of_an_enrolment_is_of_use_to_nobody_else(world: World, liar: Liar, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        with pytest.raises(Exception, match="token"):
            await client.login("a.example", code="7K3M-0PQR-W9XZ")
    assert "7K3M" not in liar.heard.upper()


async def test_a_kept_token_goes_to_the_node_that_gave_it(world: World, liar: Liar, tmp_path: Path) -> None:
    world.service.answers |= {"auth.login": {}, "run.list": {"result": []}}
    async with world.client(tmp_path) as client:
        client.logins.put(world.host.peer_id, Login(provider="local", secret="s"), {"token": SECRET})
        await client.runs()
        await (await client.node("a.example")).request("run.list")
    assert {op for op, _ in liar.calls} == {"run.list"}
    assert ("auth.login", {"token": SECRET}) in world.service.calls


async def test_the_secret_of_a_link_goes_to_its_node_alone(world: World, liar: Liar, tmp_path: Path) -> None:
    [there] = liar.host.addresses()
    address = Multiaddr.parse(str(there).replace(str(liar.peer_id), str(world.host.peer_id)))
    link = write_link(encode_token(Link(world.host.peer_id, FID, b"s" * 16, (address,))))
    await world.leave()
    async with world.client(tmp_path) as client:
        with pytest.raises(UnreachableError):
            await client.get(link)
    assert liar.calls == []


async def test_a_share_is_ended_by_the_node_of_its_run(world: World, liar: Liar, tmp_path: Path) -> None:
    world.service.answers["share.revoke"] = {"sid": OTHER, "fid": OTHER, "revoked": True}
    async with world.client(tmp_path) as client:
        await (await client.run(f"n.example/{FID}")).restart()
        assert "revoked" in await client.unshare(OTHER)


async def test_a_node_with_more_runs_than_are_remembered_is_asked_about_before_each_answer(
    world: World, liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodo.client.unproved.MAX_RUNS", 0)
    async with world.client(tmp_path) as client:
        run = await client.launch("flows.lie")
        with pytest.raises(IdentityError, match=str(liar.peer_id)):
            await run.answer(FID, SECRET)
    assert SECRET not in liar.heard
