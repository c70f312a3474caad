"""Downloads: verified, resumable, and never outside the directory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import resource
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from kodo.client import transfer
from kodo.client.transfer import Download, ManifestPage, Progress, download, fetch_manifest, part_name
from kodo.p2p.errors import (
    BrokenSessionError,
    CapacityError,
    IntegrityError,
    PeerError,
    UnreachableError,
    UsageError,
)
from kodo.protocol.manifest import CHUNK_BYTES, Manifest, ManifestBuilder

PIECE = 64 * 1024


class Memory:
    """Outputs in memory. `cuts`: bytes after which each of the next reads breaks; `spoil` changes what is read."""

    def __init__(self, **files: bytes):
        self.files = {name.replace("__", "/").replace("_", "."): data for name, data in files.items()}
        self.cuts: list[int] = []
        self.offsets: list[int] = []
        self.spoil: Callable[[int, bytes], bytes] = lambda offset, piece: piece
        self.page_chunks = 2
        self.pages: Callable[[ManifestPage], ManifestPage] = lambda page: page

    def whole(self, name: str) -> Manifest:
        builder = ManifestBuilder()
        builder.update(self.files[name])
        return builder.finish()

    async def manifest(self, name: str, first: int, count: int) -> ManifestPage:
        whole = self.whole(name)
        chunks = whole.chunks[first : first + min(count, self.page_chunks)]
        return self.pages(ManifestPage(whole.size, whole.sha256, first, chunks))

    async def read(self, name: str, offset: int) -> AsyncGenerator[bytes, None]:
        self.offsets.append(offset)
        data = self.files[name]
        left = self.cuts.pop(0) if self.cuts else len(data) + 1
        for at in range(offset, len(data), PIECE):
            if left <= 0:
                raise BrokenSessionError("cut")
            piece = data[at : at + min(PIECE, left)]
            left -= len(piece)
            yield self.spoil(at, piece)
        if left <= 0 and offset < len(data):
            raise BrokenSessionError("cut")


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


BIG = content(3 * CHUNK_BYTES + 12345)


async def fetch(source: Memory, directory: Path, **options: object) -> list[Download]:
    return await download(
        source,
        list(source.files),
        directory,
        retry_delay=lambda attempt: 0,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES])
async def test_every_size_arrives_whole(tmp_path: Path, size: int) -> None:
    source = Memory(x_bin=content(size))
    [file] = await fetch(source, tmp_path / "out")
    assert file.to.read_bytes() == source.files["x.bin"]
    assert (file.size, file.received, file.sha256) == (size, size, source.whole("x.bin").sha256.hex())
    assert os.listdir(tmp_path / "out") == ["x.bin"]


@pytest.mark.parametrize("piece", [1000, CHUNK_BYTES - 1, 2 * CHUNK_BYTES + 1])
async def test_pieces_of_any_size_make_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setitem(globals(), "PIECE", piece)
    [file] = await fetch(Memory(x_bin=BIG), tmp_path)
    assert file.to.read_bytes() == BIG


async def test_a_cancelled_download_keeps_every_whole_chunk_that_had_come(tmp_path: Path) -> None:
    source, all_sent = Memory(x_bin=BIG), asyncio.Event()

    async def hanging(name: str, offset: int) -> AsyncGenerator[bytes, None]:
        async for piece in Memory.read(source, name, offset):
            if source.offsets[-1] + sent[0] > 2 * CHUNK_BYTES:
                all_sent.set()
                await asyncio.Event().wait()
            sent[0] += len(piece)
            yield piece

    sent = [0]
    source.read = hanging  # type: ignore[method-assign]
    task = asyncio.create_task(fetch(source, tmp_path))
    await all_sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del source.read  # type: ignore[method-assign]
    [file] = await fetch(source, tmp_path)
    assert source.offsets == [0, 2 * CHUNK_BYTES]
    assert file.to.read_bytes() == BIG


async def test_folders_in_names_are_made(tmp_path: Path) -> None:
    [file] = await fetch(Memory(charts__size_svg=b"<svg/>"), tmp_path)
    assert file.to == tmp_path / "charts" / "size.svg"
    assert file.to.read_bytes() == b"<svg/>"


async def test_a_broken_stream_is_taken_up_at_the_last_good_chunk(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.cuts = [CHUNK_BYTES + 100, CHUNK_BYTES * 2 + 5]
    [file] = await fetch(source, tmp_path)
    assert file.to.read_bytes() == BIG
    assert source.offsets == [0, CHUNK_BYTES, 3 * CHUNK_BYTES]


async def test_a_download_that_gave_up_goes_on_where_it_was(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.cuts = [2 * CHUNK_BYTES + 7, *[0] * 20]
    with pytest.raises(BrokenSessionError):
        await fetch(source, tmp_path)
    assert not (tmp_path / "x.bin").exists()
    source.cuts, source.offsets = [], []
    [file] = await fetch(source, tmp_path)
    assert source.offsets == [2 * CHUNK_BYTES]
    assert file.received == len(BIG) - 2 * CHUNK_BYTES
    assert file.to.read_bytes() == BIG


async def test_a_damaged_part_counts_up_to_its_first_bad_chunk(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    part = tmp_path / part_name("x.bin", source.whole("x.bin"))
    part.write_bytes(BIG[:CHUNK_BYTES] + b"\0" + BIG[CHUNK_BYTES + 1 :] + b"more")
    [file] = await fetch(source, tmp_path)
    assert source.offsets == [CHUNK_BYTES]
    assert file.to.read_bytes() == BIG


async def test_a_part_of_other_content_is_not_taken_up(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.cuts = [2 * CHUNK_BYTES, *[0] * 20]
    with pytest.raises(BrokenSessionError):
        await fetch(source, tmp_path)
    other = Memory(x_bin=content(3 * CHUNK_BYTES))
    [file] = await fetch(other, tmp_path)
    assert other.offsets == [0]
    assert file.to.read_bytes() == other.files["x.bin"]


async def test_a_wrong_chunk_is_refused_and_what_was_good_is_kept(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.spoil = lambda at, piece: piece if at < CHUNK_BYTES * 2 else b"\0" * len(piece)
    with pytest.raises(IntegrityError, match="chunk 2"):
        await fetch(source, tmp_path)
    [part] = os.listdir(tmp_path)
    assert (tmp_path / part).read_bytes() == BIG[: 2 * CHUNK_BYTES]


async def test_after_a_wrong_chunk_in_the_middle_the_rest_is_fetched_again_from_there(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.spoil = lambda at, piece: b"\0" * len(piece) if CHUNK_BYTES <= at < 2 * CHUNK_BYTES else piece
    with pytest.raises(IntegrityError, match="chunk 1"):
        await fetch(source, tmp_path)
    source.spoil, source.offsets = lambda at, piece: piece, []
    [file] = await fetch(source, tmp_path)
    assert source.offsets == [CHUNK_BYTES]
    assert file.to.read_bytes() == BIG


async def test_what_arrives_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, sha256, source = [0], hashlib.sha256, Memory(x_bin=BIG)
    manifest = source.whole("x.bin")
    source.whole = lambda name: manifest  # type: ignore[method-assign, assignment]

    class Counted:
        def __init__(self, data: bytes = b"") -> None:
            self._hash = sha256()
            self.digest, self.hexdigest = self._hash.digest, self._hash.hexdigest
            self.update(data)

        def update(self, data: bytes) -> None:
            hashed[0] += len(data) if len(data) > 1000 else 0  # not names
            self._hash.update(data)

    monkeypatch.setattr(hashlib, "sha256", Counted)
    await fetch(source, tmp_path)
    assert hashed == [len(BIG)]


async def test_chunks_that_fit_and_a_whole_that_does_not_are_refused(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    source.pages = lambda page: ManifestPage(page.size, bytes(32), page.first, page.chunks)
    with pytest.raises(IntegrityError, match="SHA-256"):
        await fetch(source, tmp_path)
    assert not (tmp_path / "x.bin").exists()


async def test_more_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    source = Memory(x_bin=b"abc")
    source.spoil = lambda at, piece: piece + b"d"
    with pytest.raises(IntegrityError, match="more than"):
        await fetch(source, tmp_path)


async def test_fewer_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    source = Memory(x_bin=b"abc")
    source.spoil = lambda at, piece: piece[:2]
    with pytest.raises(IntegrityError, match="2 of 3"):
        await fetch(source, tmp_path)


async def test_a_file_of_the_same_content_is_not_fetched_again(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    await fetch(source, tmp_path)
    source.offsets = []
    [file] = await fetch(source, tmp_path)
    assert source.offsets == []
    assert file.received == 0


async def test_a_file_of_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"mine")
    with pytest.raises(UsageError, match="other content"):
        await fetch(Memory(x_bin=b"theirs"), tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"mine"


async def test_a_file_of_other_content_is_replaced_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"mine")
    [file] = await fetch(Memory(x_bin=b"theirs"), tmp_path, overwrite=True)
    assert file.to.read_bytes() == b"theirs"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "x\0", "", "x" * 256])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    source = Memory()
    source.files = {name: b"x"}
    with pytest.raises(PeerError):
        await fetch(source, tmp_path / "out")
    assert not (tmp_path / "x").exists()


async def test_names_that_this_system_holds_for_one_are_stored_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Memory()
    source.files = {"a.txt": b"1", "A.TXT": b"2", "x\x1b[2J": b"3"}
    monkeypatch.setattr("sys.platform", "darwin")
    assert [file.name for file in await fetch(source, tmp_path)] == list(source.files)
    assert sorted(os.listdir(tmp_path)) == ["%41.%54%58%54", "a.txt", "x%1B[2J"]


async def test_an_output_that_bears_the_name_of_anothers_part_is_refused(tmp_path: Path) -> None:
    source = Memory(a_md=b"content")
    source.files[part_name("a.md", source.whole("a.md"))] = b"other"
    with pytest.raises(PeerError, match="while it is downloaded"):
        await fetch(source, tmp_path)


async def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "charts").symlink_to(outside)
    with pytest.raises(UsageError, match="link"):
        await fetch(Memory(charts__a_svg=b"x"), out)
    assert list(outside.iterdir()) == []


async def test_a_link_in_the_place_of_the_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside.txt", tmp_path / "out"
    outside.write_bytes(b"keep")
    out.mkdir()
    (out / "x.bin").symlink_to(outside)
    with pytest.raises(UsageError):
        await fetch(Memory(x_bin=b"new"), out)
    await fetch(Memory(x_bin=b"new"), out, overwrite=True)
    assert outside.read_bytes() == b"keep"
    assert not (out / "x.bin").is_symlink()


async def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    source = Memory(x_bin=b"new")
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"keep")
    (tmp_path / part_name("x.bin", source.whole("x.bin"))).symlink_to(outside)
    with pytest.raises(UsageError):
        await fetch(source, tmp_path)
    assert outside.read_bytes() == b"keep"


async def test_two_downloads_of_the_same_file_do_not_mix(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    second: list[str] = []

    async def read(name: str, offset: int) -> AsyncGenerator[bytes, None]:
        with pytest.raises(CapacityError, match="under way"):
            await fetch(Memory(x_bin=BIG), tmp_path)
        second.append(name)
        yield BIG[offset:]

    source.read = read  # type: ignore[method-assign]
    [file] = await fetch(source, tmp_path)
    assert second == ["x.bin"]
    assert file.to.read_bytes() == BIG


async def test_a_size_beyond_the_disk_is_refused_before_its_hashes_are_asked_for(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    asked: list[int] = []

    def huge(page: ManifestPage) -> ManifestPage:
        asked.append(page.first)
        return ManifestPage(1 << 62, page.sha256, page.first, page.chunks)

    source.pages = huge
    with pytest.raises(CapacityError):
        await fetch(source, tmp_path)
    assert asked == [0]


async def test_no_more_room_is_told_and_the_part_is_kept(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES, before[1]))
    try:
        with pytest.raises(CapacityError, match="room"):
            await fetch(source, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    source.offsets = []
    await fetch(source, tmp_path)
    assert source.offsets == [CHUNK_BYTES]


async def test_a_node_that_stays_away_ends_the_download_in_time(tmp_path: Path) -> None:
    source = Memory(x_bin=BIG)

    async def read(name: str, offset: int) -> AsyncGenerator[bytes, None]:
        source.offsets.append(offset)
        raise UnreachableError("away")
        yield b""

    source.read = read  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        await fetch(source, tmp_path)
    assert len(source.offsets) == 8


async def test_progress_is_told_after_every_chunk(tmp_path: Path) -> None:
    told: list[Progress] = []
    await fetch(Memory(x_bin=BIG), tmp_path, on_progress=told.append)
    assert [progress.done for progress in told] == [0, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES, len(BIG)]
    assert {(progress.size, progress.file, progress.files) for progress in told} == {(len(BIG), 1, 1)}


async def test_a_manifest_is_read_page_by_page() -> None:
    source = Memory(x_bin=BIG)
    assert await fetch_manifest(source, "x.bin") == source.whole("x.bin")


@pytest.mark.parametrize(
    "lie",
    [
        lambda page: ManifestPage(page.size - 1 if page.first else page.size, page.sha256, page.first, page.chunks),
        lambda page: ManifestPage(
            page.size, page.sha256, page.first, page.chunks[:-1] if page.first else page.chunks
        ),
        lambda page: ManifestPage(page.size, page.sha256, page.first, (b"short", *page.chunks[1:])),
        lambda page: ManifestPage(page.size, page.sha256[1:], page.first, page.chunks),
        lambda page: ManifestPage(page.size, page.sha256, page.first, (*page.chunks, *page.chunks, *page.chunks)),
        lambda page: ManifestPage(-1, page.sha256, page.first, page.chunks),
    ],
)
async def test_a_manifest_that_contradicts_itself_is_refused(lie: Callable[[ManifestPage], ManifestPage]) -> None:
    source = Memory(x_bin=content(3 * CHUNK_BYTES))
    source.pages = lie
    with pytest.raises(IntegrityError):
        await fetch_manifest(source, "x.bin")


async def test_a_small_file_whose_hashes_differ_is_refused_before_it_is_read(tmp_path: Path) -> None:
    source = Memory(x_bin=b"abc")
    source.pages = lambda page: ManifestPage(page.size, bytes(32), page.first, page.chunks)
    with pytest.raises(IntegrityError, match="contradicts"):
        await fetch(source, tmp_path)
    assert source.offsets == []


def no_hard_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "this disk has no hard links")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
async def test_what_appears_during_a_download_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, kind: str
) -> None:
    target, source = tmp_path / "a.bin", Memory(a_bin=BIG)
    if not links:
        monkeypatch.setattr(os, "link", no_hard_links)

    def appear(offset: int, piece: bytes) -> bytes:
        if not target.exists() and not target.is_symlink():
            match kind:
                case "file":
                    target.write_text("mine")
                case "link":
                    target.symlink_to(tmp_path / "nowhere")
                case _:
                    target.mkdir()
        return piece

    source.spoil = appear
    with pytest.raises(UsageError, match="exists with other content"):
        await fetch(source, tmp_path)
    assert {"file": target.is_file, "link": target.is_symlink, "folder": target.is_dir}[kind]()
    assert kind != "file" or target.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("links", [True, False])
async def test_a_finished_download_leaves_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_hard_links)
    await fetch(Memory(a_bin=BIG), tmp_path)
    assert os.listdir(tmp_path) == ["a.bin"]
    assert os.stat(tmp_path / "a.bin").st_nlink == 1


async def test_what_appears_during_a_download_is_replaced_where_that_was_said(tmp_path: Path) -> None:
    target, source = tmp_path / "a.bin", Memory(a_bin=BIG)
    source.spoil = lambda offset, piece: (target.write_text("mine"), piece)[1]
    await fetch(source, tmp_path, overwrite=True)
    assert target.read_bytes() == BIG


class CountedNames(list[str]):
    """Names that count how often all of them are gone through."""

    rounds = 0

    def __iter__(self) -> Iterator[str]:
        self.rounds += 1
        return super().__iter__()


async def test_a_download_goes_through_its_names_no_more_often_when_they_are_many(tmp_path: Path) -> None:
    rounds = []
    for count in (2, 20):
        names = CountedNames(f"{number}.txt" for number in range(count))
        await download(Memory(**dict.fromkeys(list(names), b"x")), names, tmp_path / str(count))
        rounds.append(names.rounds)
    assert rounds[0] == rounds[1]


async def test_what_does_not_get_to_the_disk_is_told_of_while_more_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_FLUSH_CHUNKS", 1)
    failures = iter([OSError(errno.ENOSPC, "full")])

    def fsync(descriptor: int) -> None:
        for failure in failures:
            raise failure  # once: the kernel tells of it once

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CapacityError):
        await download(Memory(x_bin=BIG), ["x.bin"], tmp_path)
    assert not (tmp_path / "x.bin").exists()
