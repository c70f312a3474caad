"""Uploads: whole or not at all, resumable, their owner's, bounded, gone in time; and how they get to a runner."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.runner.upload_receiver import Inbox
from kodo.node.executors.upload_sender import RAY_PIECE_BYTES, send_files
from kodo.node.files.ledger import Ledger
from kodo.node.files.uploads import UploadLimits, Uploads, timely
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, UsageError
from kodo.protocol.args.files import InputWriteArgs
from kodo.protocol.ids import make_id
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from kodo.protocol.uploads import find_uploads, is_upload_id, wants_files
from tests.support.operations import operations
from tests.support.virtual_time import run_virtual
from tests.unit.node.conftest import StillClock

DATA = bytes(range(256)) * (5 * CHUNK_BYTES // 512) + b"the end"  # two whole chunks and a half
SCHEMA = {"type": "object", "properties": {"doc": {"type": "string", "format": "file"}}}
_numbers = itertools.count(1)


def uploads(tmp_path: Path, clock: StillClock, **options: Any) -> Uploads:
    limits = UploadLimits(**{name: options.pop(name) for name in list(options) if name in UploadLimits.__slots__})
    made = Uploads(
        tmp_path / "uploads",
        clock=clock,
        new_id=lambda: make_id(clock.ms, next(_numbers).to_bytes(10, "big")),
        limits=limits,
        **options,
    )
    made.open()
    return made


def args_of(data: bytes = DATA, name: str = "doc.pdf", *, chunks: bool = False, **more: Any) -> InputWriteArgs:
    said: dict[str, Any] = {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if chunks:
        builder = ManifestBuilder()
        builder.update(data)
        said["chunks"] = list(builder.finish().chunks)
    return InputWriteArgs.model_validate({**said, **more})


async def pieces(data: bytes = b"", size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def cut(data: bytes) -> AsyncIterator[bytes]:
    async for piece in pieces(data):
        yield piece
    raise ConnectionResetError


async def whole(made: Uploads, data: bytes = DATA, principal: str = "ana", **more: Any) -> str:
    answer = await made.write(principal, args_of(data, **more), pieces(data))
    assert (answer["offset"], answer["complete"]) == (len(data), True)
    return str(answer["upload"])


async def refusal(made: Uploads, args: InputWriteArgs, data: bytes = b"", principal: str = "ana") -> CallError:
    with pytest.raises(CallError) as caught:
        await made.write(principal, args, pieces(data))
    return caught.value


async def test_what_was_sent_in_one_call_is_on_the_disk(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    uid = await whole(made)
    [file] = made.files("ana", {"doc": uid, "again": [uid]})
    assert (file.name, file.size, file.path.read_bytes()) == ("doc.pdf", len(DATA), DATA)


async def test_an_empty_file_is_complete_at_once(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    assert made.files("ana", {"x": await whole(made, b"")})[0].path.read_bytes() == b""


async def test_nobody_else_on_the_machine_can_read_it(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    await whole(made)
    for path in (made.root, *made.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_a_cut_upload_goes_on_at_its_last_whole_chunk(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    with pytest.raises(ConnectionResetError):
        await made.write("ana", args_of(), cut(DATA[: CHUNK_BYTES + 300_000]))
    asked = await made.write("ana", args_of(), pieces())
    assert (asked["offset"], asked["complete"]) == (CHUNK_BYTES, False)
    args = args_of(upload=asked["upload"], offset=CHUNK_BYTES)
    answer = await made.write("ana", args, pieces(DATA[CHUNK_BYTES:]))
    assert (answer["upload"], answer["complete"]) == (asked["upload"], True)


async def test_a_restarted_node_goes_on_with_it(tmp_path: Path, clock: StillClock) -> None:
    first = uploads(tmp_path, clock)
    begun = await first.write("ana", args_of(), pieces(DATA[: CHUNK_BYTES + 7]))
    second = uploads(tmp_path, clock)
    args = args_of(upload=begun["upload"], offset=CHUNK_BYTES)
    assert (await second.write("ana", args, pieces(DATA[CHUNK_BYTES:])))["complete"] is True
    assert uploads(tmp_path, clock).files("ana", {"x": begun["upload"]})[0].path.read_bytes() == DATA


async def test_bytes_that_are_there_already_are_passed_over(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    await made.write("ana", args_of(), pieces(DATA[:CHUNK_BYTES]))
    assert made.files("ana", {"x": await whole(made)})[0].path.read_bytes() == DATA


async def test_the_same_file_is_not_sent_twice(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    assert await whole(made) == (await made.write("ana", args_of(), pieces()))["upload"]


async def test_a_gap_is_refused_with_the_place_to_go_on(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    error = await refusal(made, args_of(offset=CHUNK_BYTES), DATA[CHUNK_BYTES:])
    assert (error.code, error.reason, error.data["offset"]) == (409, "bad-offset", 0)


async def test_another_file_than_announced_is_refused_and_removed(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    error = await refusal(made, args_of(), DATA[:-1] + b"!")
    assert (error.code, error.reason) == (422, "bad-hash")
    assert list(made.root.iterdir()) == []


async def test_a_wrong_chunk_is_refused_and_the_good_ones_before_it_are_kept(
    tmp_path: Path, clock: StillClock
) -> None:
    made = uploads(tmp_path, clock)
    spoilt = DATA[: CHUNK_BYTES + 5] + b"?" + DATA[CHUNK_BYTES + 6 :]
    error = await refusal(made, args_of(chunks=True), spoilt)
    assert (error.code, error.reason, error.data["offset"]) == (422, "bad-hash", CHUNK_BYTES)
    assert (await made.write("ana", args_of(), pieces()))["offset"] == CHUNK_BYTES


async def test_more_bytes_than_announced_are_refused(tmp_path: Path, clock: StillClock) -> None:
    assert (await refusal(uploads(tmp_path, clock), args_of(), DATA + b"x")).code == 413


@pytest.mark.parametrize("name", ["/a", "a/", "a//b", "a/../b", "../x", "..", "x" * 256, "a\0b"])
async def test_a_name_that_is_none_is_refused(tmp_path: Path, clock: StillClock, name: str) -> None:
    error = await refusal(uploads(tmp_path, clock), args_of(name=name))
    assert (error.code, error.data["arg"]) == (400, "name")
    with pytest.raises(ValueError, match="name"):
        Inbox().take(tmp_path, "upload-" + "0" * 26, name, 0, b"data", None)


async def test_somebody_elses_upload_does_not_exist(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    uid = await whole(made)
    errors = [
        await refusal(made, args_of(upload=uid), principal="bob"),
        await refusal(made, args_of(upload="upload-" + "0" * 26), principal="ana"),
    ]
    assert [(error.code, error.reason) for error in errors] == [(404, "no-such-upload")] * 2
    with pytest.raises(CallError, match="no-such-upload"):
        made.check("bob", SCHEMA, {"doc": uid})
    assert made.files("bob", {"doc": uid}) == ()
    assert await whole(made, principal="bob") != uid


async def test_a_launch_needs_the_whole_file(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    begun = await made.write("ana", args_of(), pieces(DATA[:CHUNK_BYTES]))
    with pytest.raises(CallError) as caught:
        made.check("ana", SCHEMA, {"doc": begun["upload"]})
    assert (caught.value.reason, caught.value.data["offset"]) == ("upload-unfinished", CHUNK_BYTES)


async def test_a_flow_without_files_may_get_any_text(tmp_path: Path, clock: StillClock) -> None:
    uploads(tmp_path, clock).check("ana", {"type": "object"}, {"text": "upload-" + "0" * 26})


async def test_bounds_are_kept(tmp_path: Path, clock: StillClock) -> None:
    small = uploads(tmp_path, clock, file_bytes=10, total_bytes=15, uploads=3)
    assert (await refusal(small, args_of(b"x" * 11))).reason == "too-large"
    await whole(small, b"x" * 10)
    assert (await refusal(small, args_of(b"y" * 6))).reason == "too-many-uploads"
    await whole(small, b"y")
    await whole(small, b"z")
    assert (await refusal(small, args_of(b"w"))).reason == "too-many-uploads"
    await whole(small, b"w" * 10, principal="bob")


async def test_several_folders_of_a_thousand_files_each_are_taken_and_bounds_hold_again_after_a_restart(
    tmp_path: Path, clock: StillClock
) -> None:
    many = uploads(tmp_path, clock)
    assert many.limits.uploads >= 4 * 1000
    small = uploads(tmp_path, clock, uploads=2)
    first = await whole(small, b"x")
    await whole(small, b"y")
    small = uploads(tmp_path, clock, uploads=2)
    assert (await refusal(small, args_of(b"z"))).reason == "too-many-uploads"
    assert (await small.write("ana", args_of(b"x"), pieces()))["upload"] == first
    clock.ms += 25 * 3600 * 1000
    await small.sweep()
    assert await whole(small, b"x") != first
    await whole(small, b"z")
    assert (await refusal(small, args_of(b"w"))).reason == "too-many-uploads"


async def test_to_begin_an_upload_costs_the_same_beside_many(tmp_path: Path, clock: StillClock) -> None:
    def cost(made: Uploads) -> int:
        def look() -> None:
            assert made._find("ana", args) is None
            made._check("ana", args)

        args = args_of(b"new")
        return operations(look)

    made = uploads(tmp_path, clock)
    before = cost(made)
    for number in range(60):
        await whole(made, b"%d" % number)
    assert cost(made) <= before + 20


async def test_a_disk_that_is_nearly_full_takes_none(tmp_path: Path, clock: StillClock) -> None:
    with pytest.raises(CapacityError):
        await whole(uploads(tmp_path, clock, room_of=Ledger(tmp_path, reserve_bytes=1 << 60).share_of))


async def test_one_call_writes_at_a_time(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)

    async def meanwhile() -> AsyncIterator[bytes]:
        yield DATA[:CHUNK_BYTES]
        assert (await refusal(made, args_of(), DATA)).reason == "busy"
        yield DATA[CHUNK_BYTES:]

    assert (await made.write("ana", args_of(), meanwhile()))["complete"] is True


async def test_what_nobody_needs_any_more_goes(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    old, needed = await whole(made), await whole(made, b"needed")
    clock.advance(24 * 3600 - 1)
    assert made.stale() == []
    clock.advance(2)
    young = await whole(made, b"young")
    assert made.stale([needed]) == [(old, len(DATA))]
    await made.drop(old)
    assert {folder.name for folder in made.root.iterdir()} == {needed, young}
    with pytest.raises(CallError):
        made.check("ana", SCHEMA, {"doc": old})


async def test_what_runs_use_is_not_asked_for_while_nothing_could_go(tmp_path: Path, clock: StillClock) -> None:
    """It is looked at whenever somebody uploads, and many runs may have many inputs."""
    made = uploads(tmp_path, clock)
    await whole(made)

    def asked() -> Iterator[str]:
        raise AssertionError
        yield

    assert made.stale(asked()) == []
    await made.sweep(asked())
    clock.advance(24 * 3600 + 1)
    with pytest.raises(AssertionError):
        made.stale(asked())


async def test_a_launch_keeps_it_for_another_day(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    uid = await whole(made)
    clock.advance(24 * 3600 - 1)
    made.check("ana", SCHEMA, {"doc": uid})
    clock.advance(3600)
    assert made.stale() == []


async def test_what_lies_about_in_the_folder_is_cleared_at_the_start(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    kept, broken = await whole(made), await whole(made, b"broken")
    (made.root / broken / "meta.json").write_text("{")
    (made.root / "strange").mkdir()
    assert [folder.name for folder in uploads(tmp_path, clock).root.iterdir()] == [kept]


async def test_files_travel_to_a_runner_in_pieces(tmp_path: Path, clock: StillClock) -> None:
    made, inbox, sizes = uploads(tmp_path, clock), Inbox(), []
    uid, empty = await whole(made), await whole(made, b"", name="empty")

    async def take(uid: str, name: str, offset: int, data: bytes, sha256: str | None) -> None:
        sizes.append(len(data))
        inbox.take(tmp_path / "inputs", uid, name, offset, data, sha256)

    await send_files(made.files("ana", {"doc": uid, "more": [empty]}), take)
    filled = inbox.fill_in({"doc": uid, "more": [empty], "n": 1})
    doc, more = tmp_path / "inputs" / uid / "doc.pdf", tmp_path / "inputs" / empty / "empty"
    assert filled == {"doc": str(doc), "more": [str(more)], "n": 1}
    assert (doc.read_bytes(), more.read_bytes()) == (DATA, b"")
    assert max(sizes) <= RAY_PIECE_BYTES


async def test_files_of_a_folder_lie_in_it_at_the_runner_and_in_nobodys_way(
    tmp_path: Path, clock: StillClock
) -> None:
    made, inbox = uploads(tmp_path, clock), Inbox()
    names = ["photos/2024/a.jpg", "photos/b.jpg", "photos/B.jpg", "photos/2024", "Photos/c.jpg", "photos/2024/a.jpg"]
    uids = [await whole(made, name.encode() + bytes([number]), name=name) for number, name in enumerate(names)]

    async def take(*piece: Any) -> None:
        inbox.take(tmp_path / "inputs", *piece)

    await send_files(made.files("ana", {"docs": uids}), take)
    paths = [Path(path) for path in inbox.fill_in({"docs": uids})["docs"]]
    assert [path.relative_to(tmp_path / "inputs").as_posix() for path in paths] == [
        f"{root}/{name}" for root, name in zip("001123", names, strict=True)
    ]
    assert Path(os.path.commonpath(paths[:2])).name == "photos"
    for number, (name, path) in enumerate(zip(names, paths, strict=True)):
        assert path.read_bytes() == name.encode() + bytes([number])


async def test_a_runner_takes_no_file_that_is_not_what_was_sent(tmp_path: Path) -> None:
    uid = "upload-" + "0" * 26
    with pytest.raises(IntegrityError):
        Inbox().take(tmp_path, uid, "x", 0, b"data", "0" * 64)
    with pytest.raises(IntegrityError):
        Inbox().take(tmp_path, uid, "x", 5, b"data", None)
    with pytest.raises((UsageError, ValueError)):
        Inbox().take(tmp_path, uid, "../x", 0, b"data", None)


async def test_an_upload_that_vanished_is_told(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    files = made.files("ana", {"x": await whole(made)})
    files[0].path.unlink()
    with pytest.raises(IntegrityError, match="upload it again"):
        await send_files(files, None)  # type: ignore[arg-type]


def test_ids_are_told_from_texts() -> None:
    uid = "upload-" + make_id(1, b"0123456789")
    assert is_upload_id(uid)
    assert not any(map(is_upload_id, [uid + "\n", uid.upper(), "upload-x", None, 3]))
    assert list(find_uploads({"a": [uid, {"b": uid}], "c": "no"})) == [uid, uid]


@pytest.mark.parametrize(
    ("schema", "wants"),
    [
        (SCHEMA, True),
        ({"properties": {"a": {"anyOf": [{"format": "path"}, {"type": "null"}]}}}, True),
        ({"properties": {"format": {"type": "string", "format": "date"}}}, False),
    ],
)
def test_a_schema_says_whether_it_has_a_place_for_files(schema: dict[str, Any], wants: bool) -> None:
    assert wants_files(schema) is wants


async def test_a_disk_that_is_full_before_the_first_byte_is_told_as_one_and_leaves_nothing(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = uploads(tmp_path, clock)

    def full(upload: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(made, "_create", full)
        with pytest.raises(CapacityError):
            await made.write("ana", args_of(), pieces(DATA))
    assert list(made.root.iterdir()) == []
    await whole(made)


@pytest.mark.parametrize(
    ("every_s", "size", "pieces", "heard"),
    [
        (50.0, 1, 100, 1),  # trickles: its place is wanted by others
        (50.0, 64 << 10, 100, 100),  # slow, and sends
        (0.0, 1, 100_000, 100_000),  # tiny pieces, at once
        (61.0, 64 << 10, 3, 0),  # silent for too long
    ],
)
def test_who_sends_too_slowly_loses_its_place(every_s: float, size: int, pieces: int, heard: int) -> None:
    async def send() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            if every_s:
                await asyncio.sleep(every_s)
            yield bytes(size)

    async def hear() -> int:
        count = 0
        with contextlib.ExitStack() as stack:
            refused = stack.enter_context(pytest.raises(CallError)) if heard < pieces else None
            async for _ in timely(send(), 60.0):
                count += 1
        assert refused is None or (refused.value.code, refused.value.reason) == (408, "too-slow")
        return count

    assert run_virtual(hear()) == heard


def test_what_the_node_does_with_a_piece_takes_no_time_of_its_sender() -> None:
    async def send() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x"

    async def hear() -> int:
        count = 0
        async for _ in timely(send(), 60.0):
            await asyncio.sleep(3600)
            count += 1
        return count

    assert run_virtual(hear()) == 10


async def test_what_is_named_in_a_launch_after_it_was_found_stale_stays(tmp_path: Path, clock: StillClock) -> None:
    made = uploads(tmp_path, clock)
    old, needed = await whole(made), await whole(made, b"needed")
    clock.advance(25 * 3600)
    stale = made.stale()
    assert {uid for uid, _ in stale} == {old, needed}
    made.check("ana", SCHEMA, {"doc": needed})
    for uid, _ in stale:
        await made.drop(uid)
    assert [folder.name for folder in made.root.iterdir()] == [needed]
