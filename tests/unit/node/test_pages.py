"""Whatever is listed, an answer fits a frame, and what is left out can be asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.store.rows import NewEvent, OutputRow
from kodo.p2p.core import callframe
from kodo.p2p.errors import CallError
from kodo.protocol.manifest import Manifest
from kodo.protocol.pages import fitted, fitting, paged
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import node_of

EMPTY = hashlib.sha256().digest()
LISTS = ("steps", "locks", "agents", "config")


def rows(count: int, size: int) -> list[dict[str, Any]]:
    return [{"n": number, "text": "x" * size} for number in range(count)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (rows(3, 10), rows(2, 10), [], {}),
        lambda: (rows(100_000, 10), rows(2, 10), [], {"a": 1}),
        lambda: (rows(1000, 1000), rows(10_000, 4000), rows(1000, 1000), {str(n): "y" * 1000 for n in range(1000)}),
        lambda: (rows(1, 2_000_000), rows(5, 10), [], {}),
        lambda: ([], [], [], {str(n): "y" * 2000 for n in range(1000)}),
    ],
)
def test_of_what_does_not_fit_the_latest_is_shown_and_nothing_is_cut_that_fits(
    make: Callable[[], tuple[list[Any], list[Any], list[Any], dict[str, Any]]],
) -> None:
    steps, locks, agents, config = make()
    whole = {"fid": "f", "final": {"result": "z" * 200_000}}
    whole |= {"steps": steps, "locks": locks, "agents": agents, "config": config}
    shown = fitted(whole, LISTS)
    framed = len(callframe.encode_frame(callframe.done(shown)))
    assert shown["final"] == whole["final"]
    everything, left_out = list(whole), 0
    assert list(shown) == everything
    for name in LISTS:
        had, has = list(_rows(whole[name])), list(_rows(shown[name]))
        assert has == had[len(had) - len(has) :]
        left_out += len(had) - len(has)
    assert left_out == 0 or len(locks) < 10 or framed > callframe.MAX_FRAME_BYTES * 0.9
    if len(locks) < 10:
        assert shown["locks"] == locks, "what is small gives way to nothing"


def _rows(listed: Any) -> Any:
    return listed.items() if isinstance(listed, dict) else listed


def test_a_page_that_is_too_large_says_how_many_rows_fit() -> None:
    many = rows(500, 4000)
    with pytest.raises(CallError) as refused:
        paged(many, 500, 500, 1, 500)
    fit = refused.value.data["pp"]
    assert (refused.value.code, refused.value.reason, 200 < fit < 500) == (413, "page-too-large", True)
    callframe.encode_frame(callframe.done(paged(many[:fit], 500, 500, 1, fit)))
    assert fitting(many) == many[:fit]


async def test_ten_thousand_outputs_are_counted_in_the_state_and_listed_by_pages(
    tmp_path: Path, clock: StillClock
) -> None:
    names = [f"{'part/' * 80}{number:05}.bin" for number in range(10_000)]
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        live = node.rig.runs.live[fid]
        media = "application/octet-stream"
        for start in range(0, len(names), 1000):
            some = names[start : start + 1000]
            said = [{"name": name, "size": 0, "sha256": EMPTY.hex(), "media_type": media} for name in some]
            made = [OutputRow(name, media, Manifest(0, EMPTY, ())) for name in some]
            await node.rig.runs.append(live, [NewEvent.make("output", data) for data in said], made)
        for _ in ("live", "over"):
            state = await node.call("run.state", fid=fid)
            callframe.encode_frame(callframe.done(state))
            shown = [row["name"] for row in state["outputs"]]
            assert state["totals"]["outputs"] == len(names)
            assert 1000 < len(shown) < len(names)
            assert shown == names[-len(shown) :]
            if node.rig.runs.live:
                await node.call("run.kill", fid=fid)
                await node.rig.gone(fid)
        found, p = [], 1
        while len(found) < len(names):
            page = await node.call("output.list", fid=fid, p=p)
            callframe.encode_frame(callframe.done(page))
            assert (page["total_records"], page["total_pages"]) == (10_000, 20)
            found += [row["name"] for row in page["result"]]
            p += 1
        assert found == sorted(names)
