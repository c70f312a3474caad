"""The library against a node in memory: real calls over real sessions, links that can be cut."""

from __future__ import annotations

import gc
import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kodo.client.logins import Login
from kodo.client.peer import Backoff
from kodo.client.resolve import Found
from kodo.client.sync import Client as SyncClient
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import (
    CallError,
    IdentityError,
    KodoError,
    LocallyClosedError,
    NetworkError,
    NotFoundError,
    PeerError,
    UsageError,
)
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from tests.support.world import DATA, FID, World, event


async def test_a_launch_goes_by_path_with_its_inputs_and_a_key(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.launch("n.example/Competitor Analysis", topic="bikes", inputs={"depth": 2}, tags=["t"])
    assert (run.fid, run.node, run.address) == (FID, "n.example", f"n.example/{FID}")
    args = world.service.calls[-1][1]
    assert (args["path"], args["inputs"]) == ("flows.market.Competitor", {"depth": 2, "topic": "bikes"})
    assert (args["tags"], len(args["key"])) == (["t"], 32)


async def test_typed_values_are_sent_in_the_form_of_the_flow_and_of_the_question(
    world: World, tmp_path: Path
) -> None:
    schema = {"properties": {"when": {"type": "string", "format": "date"}, "price": {"type": "number"}}}
    world.service.schema = schema
    world.service.answers["lock.get"] = {"fid": FID, "lid": FID, "schema": {"type": "number"}}
    async with world.client(tmp_path / "h") as client:
        run = await client.launch("n.example/flows.b", when=date(2026, 1, 31), price=Decimal("0.5"))
        assert world.service.calls[-1][1]["inputs"] == {"when": "2026-01-31", "price": 0.5}
        await run.answer(FID, Decimal("1.5"))
        assert world.service.calls[-1][1]["candidate"] == 1.5
        with pytest.raises(UsageError, match="the answer should be a finite number"):
            await run.answer(FID, math.nan)
        with pytest.raises(UsageError, match="n should be a whole number"):
            await client.launch("n.example/flows.b", n=2**64)


@pytest.mark.parametrize(("name", "value"), [("node", "n.example"), ("key", "k"), ("tags", ["t"]), ("strict", True)])
async def test_an_option_that_is_the_name_of_an_input_too_asks_which_is_meant(
    world: World, tmp_path: Path, name: str, value: Any
) -> None:
    world.service.schema = {"properties": {name: {}}}
    flow = "flows.b" if name == "node" else "n.example/flows.b"
    async with world.client(tmp_path / "h") as client:
        with pytest.raises(UsageError, match=f"has an input '{name}'.* inputs={{'{name}': …}}"):
            await client.launch(flow, **{name: value})
        for inputs in ({}, {name: "x"}):
            await client.launch(flow, inputs=inputs, **{name: value})
            assert world.service.calls[-1][1]["inputs"] == inputs


async def test_one_tag_and_one_output_may_be_given_as_a_text(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.launch("n.example/Competitor Analysis", tags="urgent")
        assert world.service.calls[-1][1]["tags"] == ["urgent"]
        await run.download(tmp_path / "out", names="x.bin")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.bin"]


async def test_a_name_is_pinned_once_the_node_proved_its_key(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        remote = await client.node("n.example")
        assert client.known.get("n.example") is None
        await remote.request("flow.list")
        assert client.known.get("n.example") == world.host.peer_id


@pytest.mark.parametrize("named", ["n.example", "peer id"])
async def test_a_node_with_an_open_session_is_not_looked_for(world: World, tmp_path: Path, named: str) -> None:
    async with world.client(tmp_path / "h") as client:
        node = named if named == "n.example" else str(world.host.peer_id)
        await client.launch("Competitor Analysis", node=node)
        asked = world.place.asked
        await client.launch("Competitor Analysis", node=node)
        assert world.place.asked == asked


async def test_a_pinned_name_with_an_open_session_goes_to_no_other_claimant(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        await client.launch("n.example/Competitor Analysis")
        address = world.place.found[0].addresses[0]
        stranger = Identity.from_seed(b"s" * 32).peer_id
        world.place.found = [Found(stranger, "n.example", (address,), "lan")]
        assert (await client.node("n.example")).peer_id == world.host.peer_id
        world.network.cut()
        with pytest.raises(IdentityError):
            await client.node("n.example")


async def test_a_node_is_looked_for_again_when_its_pin_is_gone(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        await client.launch("n.example/Competitor Analysis")
        asked = world.place.asked
        client.known.forget("n.example")
        await client.node("n.example")
        assert world.place.asked == asked + 1


async def test_looking_around_pins_nothing(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        rows = [row async for row in client.flows()]
        assert {(row["node"], row["source"]) for row in rows} == {("n.example", "lan")}
        assert client.known.all() == {}


async def test_a_flow_is_found_by_its_unique_name_or_path_alone(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        for text in ("Competitor Analysis", "competitor analysis", "flows.market.Competitor"):
            assert (await client.find_flow(text)).path == "flows.market.Competitor"


async def test_a_name_of_several_flows_is_refused_with_the_choices(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        for text in ("Twin", "n.example/Twin"):
            with pytest.raises(UsageError, match=r"flows\.b.*flows\.c"):
                await client.find_flow(text)


async def test_an_unknown_flow_is_not_found_and_the_nearest_is_named(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        with pytest.raises(NotFoundError, match="Competitor Analysis"):
            await client.find_flow("n.example/Competitor Analysys")


async def test_following_gives_every_event_once_and_in_order_over_broken_links(world: World, tmp_path: Path) -> None:
    world.service.cuts = [1, 50, 51, 199]
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        seen = [each.seq async for each in run.follow()]
    assert seen == list(range(1, 201))
    assert world.service.cuts == []
    assert run.view.final == {"result": "r"}


async def test_following_begins_after_the_event_that_is_known(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        assert [each.seq async for each in run.follow(198)] == [199, 200]


async def test_an_event_that_comes_again_is_not_given_again(world: World, tmp_path: Path) -> None:
    world.service.extra = lambda after: [event(3), event(1), event(2), event(3)]
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        seen = [each.seq async for each in run.follow()]
    assert seen == [3, *range(4, 201)]


async def test_a_node_that_moved_is_found_again(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        events = run.follow()
        assert (await anext(events)).seq == 1
        await world.host._listeners.pop().aclose()
        world.network.cut()
        await world.host.listen(["10.0.0.2"], 4712)
        world.claim("n.example")
        assert [each.seq async for each in events] == list(range(2, 201))


async def test_a_node_that_stays_away_is_given_up_when_patience_ends(world: World, tmp_path: Path) -> None:
    world.service.events.pop()
    world.service.unfinished = True
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        events = run.follow(patience=0)
        assert (await anext(events)).seq == 1
        world.place.found = []
        await world.host._listeners.pop().aclose()
        world.network.cut()
        with pytest.raises(NetworkError):
            async for _ in events:
                pass


async def test_a_run_that_no_near_node_has_is_not_found(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        with pytest.raises(NotFoundError, match="NODE/"):
            await client.run("0" * 26)


async def test_a_request_is_made_again_when_its_session_broke(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        await run.state()
        world.network.cut()
        assert (await run.state())["state"] == "done"


async def test_an_answer_carries_a_key_so_that_it_counts_once(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        assert (await run.answer(FID, {"ok": True}))["answer"] == {"ok": True}
    assert len(world.service.calls[-1][1]["key"]) == 32


async def test_outputs_arrive_verified(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        [file] = await run.download(tmp_path / "out")
        assert file.to.read_bytes() == DATA
        with pytest.raises(NotFoundError, match=r"x\.bin"):
            await run.download(tmp_path / "out", names=["y.bin"])


async def test_a_client_is_used_while_it_is_open(world: World, tmp_path: Path) -> None:
    client = world.client(tmp_path / "h")
    with pytest.raises(LocallyClosedError):
        await client.launch("n.example/flows.b")


async def test_what_a_notebook_shows_of_a_run_is_escaped(world: World, tmp_path: Path) -> None:
    world.service.events = [event(1, "final", result="<script>\x1b[0m</script>")]
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        await run.wait()
        shown = run._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in shown


def test_without_async_a_closed_client_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KODO_NODE", raising=False)
    network = MemoryNetwork()
    with SyncClient(tmp_path / "h", lan=False, registries=[], transport=MemoryTransport(network)) as client:
        assert client.nodes() == []
        assert list(client.flows()) == []
        with pytest.raises(NotFoundError):
            client.launch("nobody.example/flow")
    with pytest.raises(LocallyClosedError):
        client.nodes()


def test_waits_between_attempts_grow_and_end() -> None:
    now = [0.0]
    backoff = Backoff(10, lambda: now[0])
    first = backoff.delay()
    for _ in range(10):
        last = backoff.delay()
    assert first is not None
    assert last is not None
    assert first <= 0.1 < last <= 5
    now[0] = 9.9
    assert (backoff.delay() or 9) <= 0.11
    now[0] = 10
    assert backoff.delay() is None
    backoff.succeeded()
    assert (backoff.delay() or 9) <= 0.1


def finished_run(world: World) -> dict[str, str]:
    builder = ManifestBuilder()
    builder.update(DATA)
    output = {"name": "x.bin", "sha256": builder.finish().sha256.hex()}
    world.service.told = {"own": True, "acknowledged": False, "outputs": [output]}
    return output


async def test_a_download_goes_on_when_what_its_caller_may_do_was_changed(world: World, tmp_path: Path) -> None:
    world.service.refusals = [CallError(503, "access-changed", "changed")]
    async with world.client(tmp_path) as client:
        world.claim("here")
        run = await client.run(f"here/{FID}")
        await run.download(tmp_path / "out")
    assert (tmp_path / "out" / "x.bin").read_bytes() == DATA
    reads = [args["offset"] for op, args in world.service.calls if op == "output.read"]
    assert reads[0] == 0
    assert reads[1] >= CHUNK_BYTES


async def test_a_download_whose_login_is_over_ends(world: World, tmp_path: Path) -> None:
    world.service.refusals = [CallError(401, "bad-token", "over")]
    async with world.client(tmp_path) as client:
        world.claim("here")
        run = await client.run(f"here/{FID}")
        with pytest.raises(CallError, match="over"):
            await run.download(tmp_path / "out")
    assert not (tmp_path / "out" / "x.bin").exists()


async def asked_after_a_download(world: World, home: Path, **options: Any) -> list[str]:
    async with world.client(home / "h") as client:
        run = await client.run(FID, node="n.example")
        await run.download(home / "out", **options)
    return [op for op, _ in world.service.calls]


async def test_a_run_is_acknowledged_once_all_it_made_was_verified(world: World, tmp_path: Path) -> None:
    finished_run(world)
    assert (await asked_after_a_download(world, tmp_path))[-1] == "run.ack"


async def test_a_run_is_not_acknowledged_with_keep(world: World, tmp_path: Path) -> None:
    finished_run(world)
    assert "run.ack" not in await asked_after_a_download(world, tmp_path, keep=True)


@pytest.mark.parametrize(
    "told",
    [
        {"own": False},
        {"state": "pending"},
        {"acknowledged": True},
        {"outputs": [{"name": "x.bin", "sha256": "0" * 64}]},
    ],
)
async def test_a_run_is_not_acknowledged_when(told: dict[str, Any], world: World, tmp_path: Path) -> None:
    finished_run(world)
    world.service.told |= told
    assert "run.ack" not in await asked_after_a_download(world, tmp_path)


async def test_a_run_is_not_acknowledged_before_each_of_its_outputs_came(world: World, tmp_path: Path) -> None:
    output = finished_run(world)
    world.service.told["outputs"] = [output, {"name": "later.bin", "sha256": "1" * 64}]
    assert "run.ack" not in await asked_after_a_download(world, tmp_path)


async def test_a_restart_gives_the_new_run(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        again = await run.restart()
        assert (again.fid, again.launched_state, again.peer_id) == ("0" * 26, "pending", run.peer_id)
        await run.delete()
    assert [op for op, _ in world.service.calls[-2:]] == ["run.restart", "run.delete"]


async def test_a_restart_sends_what_is_changed_and_nothing_else(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        await run.restart()
        await run.restart({"n": 2}, key="k", tags="t", strict=True)
        await run.restart({"n": 3})
    sent = [args for op, args in world.service.calls if op == "run.restart"]
    assert sent[0] == {"fid": FID}
    assert sent[1] == {"fid": FID, "inputs": {"n": 2}, "key": "k", "tags": ["t"], "strict": True}
    assert len(sent[2].pop("key")) == 32
    assert sent[2] == {"fid": FID, "inputs": {"n": 3}}


async def test_a_node_that_cannot_change_inputs_is_told_as_such(world: World, tmp_path: Path) -> None:
    async def old(request: Any) -> Any:
        words = "run.restart: inputs: Extra inputs are not permitted"
        raise CallError(400, "bad-args", words, {"arg": "inputs"})

    async with world.stranger(9, "old.example", old), world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="old.example")
        with pytest.raises(PeerError, match="older kodo"):
            await run.restart({"n": 2})
        with pytest.raises(CallError):
            await run.restart()


@pytest.mark.parametrize("room", [500, 499, 333, 7, 1])
async def test_rows_come_once_each_whatever_pages_the_node_can_give(world: World, tmp_path: Path, room: int) -> None:
    world.service.made = [{"name": f"{number}", "sha256": "0" * 64} for number in range(1200)]

    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        found = run._remote.pages("output.list", {"fid": FID})
        rows = [await anext(found) for _ in range(500)]
        world.service.room = room
        rows += [row async for row in found]
    assert rows == world.service.made


async def test_a_run_of_many_outputs_is_acknowledged_when_all_of_them_were_received(
    world: World, tmp_path: Path
) -> None:
    world.service.made = [{"name": f"{number}", "sha256": "0" * 64} for number in range(1200)]
    world.service.told = {"own": True, "outputs": world.service.made[-300:], "totals": {"outputs": 1200}}
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        assert not await run.settle({f"{number}": "0" * 64 for number in range(900, 1200)})
        assert await run.settle({f"{number}": "0" * 64 for number in range(1200)})


async def test_what_is_checked_is_what_is_written_whatever_the_node_lists_next(world: World, tmp_path: Path) -> None:
    checked: list[list[str]] = []
    async with world.client(tmp_path / "h") as client:
        run = await client.run(FID, node="n.example")
        await run.download(tmp_path / "out", check=lambda names: checked.append(list(names)))
        world.service.made = [{"name": ".bashrc", "size": 1}]

        def refuse(names: Any) -> None:
            raise UsageError(f"hidden: {names}")

        with pytest.raises(UsageError, match="bashrc"):
            await run.download(tmp_path / "out", check=refuse)
    assert checked == [["x.bin"]]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.bin"]


@pytest.mark.parametrize("by", ["name", "peer id", "address"])
async def test_a_login_is_forgotten_where_its_node_is_away(world: World, tmp_path: Path, by: str) -> None:
    place = {"name": "n.example", "peer id": str(world.host.peer_id), "address": str(world.host.addresses()[0])}[by]
    async with world.client(tmp_path) as client:
        client.known.pin("n.example", world.host.peer_id)
        client.logins.put(world.host.peer_id, Login(provider="local", secret="s"), {"token": "t"})
        await world.leave()
        assert await client.logout(place) is True
        assert client.logins.get(world.host.peer_id) is None
        with pytest.raises(KodoError):
            await client.logout(place)


async def test_a_login_is_forgotten_where_its_node_refuses_to_end_it(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        client.logins.put(world.host.peer_id, Login(provider="local", secret="s"), {"token": "t"})
        assert await client.logout("n.example") is True  # it knows no auth.logout
        assert client.logins.get(world.host.peer_id) is None


async def test_a_login_is_forgotten_where_its_registry_is_away(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path) as client:
        client.logins.put("http://127.0.0.1:9", Login(provider="local", secret="s"), {"token": "t"})
        assert await client.logout("http://127.0.0.1:9") is True
        assert client.logins.get("http://127.0.0.1:9") is None


async def test_a_registry_that_is_away_leaves_nothing_open(world: World, tmp_path: Path) -> None:
    def sessions() -> int:
        gc.collect()
        return sum(isinstance(each, aiohttp.ClientSession) and not each.closed for each in gc.get_objects())

    before = sessions()
    async with world.client(tmp_path) as client:
        for _ in range(3):
            with pytest.raises(KodoError):
                await client.desk("http://127.0.0.1:9")
            assert sessions() <= before + 1
    assert sessions() == before


async def test_a_node_that_is_named_is_listed_alone_once_it_answered(world: World, tmp_path: Path) -> None:
    async with world.client(tmp_path / "h") as client:
        [address] = world.place.found[0].addresses[:1]
        world.place.found = []
        [row] = await client.nodes(node=str(address))
        assert (row["peer_id"], row["online"]) == (str(world.host.peer_id), True)
        assert await client.nodes(query="not online", node=str(address)) == []
        await world.leave()
        with pytest.raises(NetworkError):
            await client.nodes(node=str(address))


async def test_a_yaml_flow_is_found_with_and_without_its_dot(world: World, tmp_path: Path) -> None:
    world.service.flows = [{"path": "./flows/x.yaml", "name": "X"}]
    async with world.client(tmp_path / "h") as client:
        for text in ("n.example/flows/x.yaml", "n.example/./flows/x.yaml"):
            assert (await client.find_flow(text)).path == "./flows/x.yaml"
