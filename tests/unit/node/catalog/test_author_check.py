"""Authors' checks on a node: asked before a launch, within bounds, and never where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kodo.node.catalog.author_check import AT_ONCE, MAX_WAITING, AuthorChecks
from kodo.node.catalog.catalog import Catalog
from kodo.node.catalog.user_code import ask_process
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.runs.live import LiveRun
from kodo.node.store.rows import RunRow
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, KodoError
from kodo.protocol.secrets import MASK
from tests.unit.node.catalog.test_catalog import info
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig_of

ODD = {"places": [{"at": "/depth", "message": "odd"}]}


def checks(answer: Any) -> AuthorChecks:
    async def ask(request: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    return AuthorChecks(["/flows"], ask=ask)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (DeadlineError("slow"), "it took longer than 20 s"),
        (KodoError("Python ended with SIGKILL"), "Python ended with SIGKILL"),
        (CapacityError("it answered more than 65536 bytes"), "more than 65536 bytes"),
        ({"failed": "KeyError: 'x'"}, "KeyError: 'x'"),
        ({}, "it gave no answer"),
        ({"places": 7}, "it gave no answer"),
        ({"places": [{"at": ""}]}, "it gave no answer"),
    ],
)
async def test_a_check_without_an_answer_refuses_the_launch_and_says_that_it_is_the_checks_fault(
    answer: Any, why: str
) -> None:
    with pytest.raises(CallError, match=f"the check of inputs that a.Alpha has .* failed: .*{why}") as refused:
        await checks(answer).faults("a.Alpha", "a:Alpha", {}, "ana")
    assert (refused.value.code, refused.value.reason) == (409, "check-failed")


async def test_some_are_asked_at_once_the_others_wait_and_too_many_are_refused() -> None:
    running, most, gate = 0, 0, asyncio.Event()

    async def ask(request: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return {"places": []}

    asked = AuthorChecks([], ask=ask)
    tasks = [
        asyncio.create_task(asked.faults("a", "a:a", {}, payer))
        for payer in ("ana", "bob")
        for _ in range(MAX_WAITING)
    ]
    await settled(lambda: running == AT_ONCE)
    gate.set()
    said = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [each for each in said if isinstance(each, CallError)]
    assert most == AT_ONCE
    assert {error.code for error in refused} == {429}
    assert 0 < len(said) - len(refused) <= MAX_WAITING


async def made(store: Store, answer: Any, **more: Any) -> Catalog:
    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [info("a.Alpha", "Alpha", has_check=True, **more), info("b.Beta", "Beta")]

    catalog = Catalog(["x"], describe=describe, checks=checks(answer))
    await catalog.load(store)
    return catalog


async def test_what_a_check_finds_is_a_refusal_with_the_places_and_a_flow_without_is_not_asked(store: Store) -> None:
    catalog = await made(store, ODD)
    with pytest.raises(CallError, match=r"a\.Alpha; /depth: odd") as refused:
        await catalog.check_by_author(catalog.find(path="a.Alpha"), {"topic": "x"}, "ana")
    assert (refused.value.code, refused.value.reason, refused.value.data) == (
        400,
        "bad-inputs",
        {**ODD, "missing": []},
    )
    broken = await made(store, KodoError("asked"))
    await broken.check_by_author(broken.find(path="b.Beta"), {"topic": "x"}, "ana")


async def test_inputs_that_were_given_later_are_judged_too_and_no_secret_is_in_the_reasons(store: Store) -> None:
    schema = {"type": "object", "properties": {"key": {"type": "string", "writeOnly": True}}}
    catalog = await made(store, {"places": [{"at": "", "message": "hunter2 is weak"}]}, schema=schema)
    live = LiveRun(RunRow(fid="f", principal="ana", path="a.Alpha", name="", entry="", created=0, modified=0))
    assert await catalog.faults(live, {"key": "hunter2"}) == [f"{MASK} is weak"]


async def test_a_launch_is_judged_once_for_its_key(tmp_path: Path, clock: StillClock) -> None:
    asked: list[str] = []

    async def flow(run: InProcessRunner) -> str:
        return "done"

    async def accept() -> None:
        asked.append("once")

    async def refuse() -> None:
        raise CallError(400, "bad-inputs", "no")

    async with rig_of(tmp_path, clock, {"flow": flow}) as node:
        with pytest.raises(CallError, match="no"):
            await node.launch(key="k", check=refuse)
        fid = await node.launch(key="k", check=accept)
        # By now it may judge otherwise; the run that was launched is there nevertheless.
        assert await node.launch(key="k", check=refuse) == fid
    assert asked == ["once"]


async def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(1000)")
    request = {"roots": [str(tmp_path)], "entry": "hangs:x", "inputs": {}}
    with pytest.raises(DeadlineError, match="within 1 s"):
        await ask_process("kodo.flow._runtime.input_check", request, seconds=1, most_bytes=1 << 16)


async def test_a_process_that_a_signal_ends_names_it(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\nos.kill(os.getpid(), 9)")
    request = {"roots": [str(tmp_path)], "entry": "ends:x", "inputs": {}}
    with pytest.raises(KodoError, match="SIGKILL"):
        await ask_process("kodo.flow._runtime.input_check", request, seconds=60, most_bytes=1 << 16)
