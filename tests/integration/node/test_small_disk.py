"""Outputs that do not fit on a disk that is really small: told, nothing half-made left, and the node goes on."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.flow import output
from kodo.node.executors.in_process import InProcessRunner
from kodo.p2p.errors import CapacityError
from kodo.protocol.args.files import InputWriteArgs
from tests.support.small_disk import fill, small_disk
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import Rig, rig_of

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 12 * MIB) as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk")
        yield tmp_path / "disk"


async def makes(run: InProcessRunner) -> str:
    run.output("big.bin", b"x" * int(run.spec.inputs["size"]))
    return "made"


@pytest.fixture
async def node(disk: Path) -> AsyncIterator[Rig]:
    async with rig_of(disk, StillClock(), {"flow": makes}) as made:
        yield made


def files(node: Rig) -> list[str]:
    return sorted(path.name for path in node.outputs.root.rglob("*") if path.is_file())


async def waits(node: Rig) -> None:
    """Wait until the node has tried in vain, and will again."""
    await settled(lambda: any(due == node.clock.steady + 5000 for due, *_ in node.clock._sleepers))


async def test_an_output_larger_than_the_disk_ends_its_run_at_once(node: Rig) -> None:
    events = await node.all_events(await node.launch(inputs={"size": 16 * MIB}))
    assert [event.event for event in events[3:]] == ["fatal"]
    assert events[-1].data["type"] == "NodeFull"
    assert "can never fit on the disk" in events[-1].data["message"]
    assert files(node) == []
    assert (await node.all_events(await node.launch(inputs={"size": MIB})))[-1].event == "final"


@pytest.mark.parametrize("noticed", ["before", "in the midst"])
async def test_an_output_waits_for_room_and_is_whole_then(node: Rig, disk: Path, noticed: str) -> None:
    if noticed == "in the midst":  # by the disk itself: the ledger is told of more than there is
        node.ledger._disk = lambda root: SimpleNamespace(total=1 << 40, free=1 << 40)
    fill(disk / "ballast", leave=2 * MIB)
    fid = await node.launch(inputs={"size": 4 * MIB})
    await waits(node)
    assert files(node) == []
    (disk / "ballast").unlink()
    node.clock.advance(5)
    assert [event.event for event in (await node.all_events(fid))[3:]] == ["wait", "output", "final"]
    assert (node.outputs.root / fid / "big.bin").read_bytes() == b"x" * 4 * MIB


async def test_a_run_for_whose_output_there_is_never_room_is_fatal_and_the_next_one_is_not(
    node: Rig, disk: Path
) -> None:
    fill(disk / "ballast", leave=2 * MIB)
    fid = await node.launch(inputs={"size": 4 * MIB})
    await waits(node)
    await settled(lambda: node.clock.advance(5) or fid not in node.runs.live)
    last = (await node.all_events(fid))[-1]
    assert (last.event, last.data["type"]) == ("fatal", "NodeFull")
    assert "free some space" in last.data["message"]
    assert files(node) == []
    (disk / "ballast").unlink()
    assert (await node.all_events(await node.launch(inputs={"size": 4 * MIB})))[-1].event == "final"


def test_a_flow_is_told_that_its_output_does_not_fit_and_may_go_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk)
    with pytest.raises(CapacityError, match=r"'big\.bin' does not fit on this machine's disk"):
        output.write("big.bin", (b"x" * MIB for _ in range(16)))
    assert list((disk / "outputs").iterdir()) == []
    assert output.write("small.bin", b"x" * MIB)["size"] == MIB


async def test_four_uploads_at_once_leave_the_reserve_alone(node: Rig, disk: Path) -> None:
    node.ledger.reserve_bytes = 4 * MIB
    lowest = [shutil.disk_usage(disk).free]

    async def upload(number: int) -> Any:
        data = bytes([number]) * (3 * MIB)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), MIB // 2):
                yield data[start : start + MIB // 2]
                lowest.append(shutil.disk_usage(disk).free)

        said = {"name": "a.bin", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return await node.uploads.write("ana", InputWriteArgs.model_validate(said), pieces())

    ended = await asyncio.gather(*map(upload, range(4)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["CapacityError"] * 3 + ["dict"]
    assert min(lowest) >= 4 * MIB
