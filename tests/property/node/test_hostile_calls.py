"""Whatever a peer calls, with whatever args, it is answered or refused, and learns and changes nothing of others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodo.p2p.core.callframe import check_value, done, encode_frame
from kodo.p2p.errors import CallError, CapacityError, PeerError
from kodo.protocol.calls import OPS
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.service_rig import LID, Node, node_of

CANARY = "canary-7a31"
REFUSALS = {*range(400, 500), 503, 507}


class World:
    """A node on which ana has a run that is over, one that asks, a share and a link; eve calls."""

    def __init__(self, home: Path):
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.node: Node = self.runner.run(self.stack.enter_async_context(node_of(home, StillClock())))
        self.runner.run(self._prepare())

    async def _prepare(self) -> None:
        call = self.node.call
        self.over = await self.node.finished(tags=[CANARY])
        self.asks = (await call("run.launch", path="flows.ask", inputs={"n": 1}, tags=[CANARY], key="k"))["fid"]
        await self.node.rig.until(self.asks, "lock")
        to = {"users": ["bob"], "roles": []}
        self.sid = (await call("run.share", fid=self.over, to=to))["sid"]
        await call("run.share", fid=self.over, link=True, downloads=1)
        self.before = await self.seen()

    async def seen(self) -> list[Any]:
        """Give all that ana sees of what is hers."""
        states = [await self.node.call("run.state", fid=fid) for fid in (self.over, self.asks)]
        events = [(await self.node.rig.store.events(fid))[:] for fid in (self.over, self.asks)]
        return [states, events, (await self.node.call("share.list"))["result"]]

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("node"))
    yield made
    made.close()


HUGE = [
    2**63,
    -(2**63),
    2**64 - 1,
    10**6,
    "x" * 100_000,
    b"y" * 100_000,
    [0] * 10_000,
    {str(n): n for n in range(1000)},
]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30), st.binary(max_size=40), st.sampled_from(HUGE),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)  # fmt: skip
NAMES = sorted({name for model in OPS.values() for name in model.model_fields} | {"from", "nonsense", ""})
OPERATIONS = st.sampled_from([*sorted(set(OPS) - {"run.stream"}), "run.fly", "", "run.stream", "\u0000"])


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An op with args: those it takes, more often than not of a type that it takes, and others."""
    op = draw(OPERATIONS)
    own = sorted(OPS[op].model_fields) if op in OPS else []
    fitting = {
        "fid": ["over", "asks", "none"], "behalf": ["over", "none"], "lid": [LID], "sid": ["sid"],
        "path": ["flows.work", "flows.ask"], "name": ["report.md", "../node.db", "FLOWS.ASK"], "inputs": [{"n": 1}],
        "candidate": [True, None], "secret": [b"0" * 16], "key": ["k"], "link": [True], "follow": [False],
        "to": [{"users": ["eve"], "roles": []}], "mode": ["r", "x"], "level": [0, 2], "of": ["flows.work"],
        "scope": ["long", "shared"], "chain": [[{"peer_id": peer, "fid": "over"}] for peer in ("eve", "ana")],
        "size": [0, 10], "sha256": ["0" * 64], "drain_s": [1.0], "runners": [3], "what": [["run"]], "others": [True],
    }  # fmt: skip
    args: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(own), max_size=6)) if own else ():
        args[name] = draw(st.sampled_from(fitting[name]) if name in fitting and draw(st.integers(0, 4)) else ODD)
    if "fid" in own and draw(st.integers(0, 4)):
        args["fid"] = draw(st.sampled_from(fitting["fid"]))
    if not draw(st.integers(0, 9)):
        args[draw(st.sampled_from(NAMES))] = draw(ODD)
    return op, args


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(calls(), min_size=1, max_size=6))
def test_a_stranger_is_answered_or_refused_and_learns_and_changes_nothing(
    world: World, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    world.runner.run(_ask(world, asked))


async def _ask(world: World, asked: list[tuple[str, dict[str, Any]]]) -> None:
    meant = {"over": world.over, "asks": world.asks, "none": fid_of(77), "sid": world.sid}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return meant.get(value, value) if isinstance(value, str) else value

    for op, args in asked:
        try:
            async with asyncio.timeout(20):
                told = await world.node.call(op, "eve", **filled(args))
        except CallError as error:
            told = [error.code, error.reason, error.message, error.data]
            if error.code not in REFUSALS:
                raise
        except (CapacityError, PeerError):
            continue
        check_value(told)
        encode_frame(done(told))
        assert CANARY not in str([told, world.node.items]), (op, args)
    assert await world.seen() == world.before
    for live in list(world.node.rig.runs.live.values()):
        if live.row.principal.endswith("eve"):
            await world.node.rig.runs.kill(live.fid, "eve")
