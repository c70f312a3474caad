"""Outputs of runners on this machine: copied within it, and what is verified is the copy."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any, cast

import pytest

from kodo.node.executors.executor import Runner
from kodo.node.executors.local_files import open_below
from kodo.node.files import outputs as outputs_module
from kodo.node.files.outputs import Outputs
from kodo.p2p.errors import CapacityError, IntegrityError
from kodo.protocol import manifest as manifest_module
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from tests.unit.node.conftest import fid_of


class Here:
    """A runner on this machine; `pieces` counts what was asked for as from another one."""

    def __init__(self, folder: Path):
        self.fid = fid_of(1)
        self.folder = folder
        self.pieces = 0
        self.opened: list[int] = []

    def open_output(self, name: str) -> int | None:
        descriptor = open_below(self.folder, name)
        if descriptor is not None:
            self.opened.append(descriptor)
        return descriptor

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        self.pieces += 1
        return (self.folder / name).read_bytes()[offset : offset + length]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    (tmp_path / "files").mkdir()
    return Here(tmp_path / "files")


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    made = Outputs(tmp_path / "outputs")
    made.open()
    return made


def said_of(content: bytes, **claims: Any) -> dict[str, Any]:
    said = {"name": "a.bin", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**said, "media_type": "application/octet-stream", **claims}


SIZES = [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.mark.parametrize("way", ["kernel", "plain", "calls"])
@pytest.mark.parametrize("size", SIZES)
async def test_every_way_gives_the_same_file_and_manifest(
    here: Here, outputs: Outputs, monkeypatch: pytest.MonkeyPatch, size: int, way: str
) -> None:
    content = os.urandom(size)
    (here.folder / "a.bin").write_bytes(content)
    if way == "plain":

        def refuse(*_: Any) -> int:
            raise OSError(errno.EXDEV, "another device")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    elif way == "calls":
        monkeypatch.setattr(here, "open_output", lambda name: None)
    row = await outputs.fetch(cast(Runner, here), said_of(content))
    builder = ManifestBuilder()
    builder.update(content)
    assert row.manifest == builder.finish()
    assert (outputs.root / here.fid / "a.bin").read_bytes() == content
    assert (here.pieces > 0) == (way == "calls" and size > 0)
    for descriptor in here.opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("claims", [{"sha256": "0" * 64}, {"size": 5}, {"size": 7}])
async def test_a_file_that_is_not_what_its_event_says_is_refused_and_nothing_is_left(
    here: Here, outputs: Outputs, claims: dict[str, Any]
) -> None:
    (here.folder / "a.bin").write_bytes(b"123456")
    with pytest.raises(IntegrityError):
        await outputs.fetch(cast(Runner, here), said_of(b"123456", **claims))
    assert list((outputs.root / ".part").iterdir()) == []
    assert not (outputs.root / here.fid).exists()


def chunks_sha256_of(content: bytes) -> str:
    builder = ManifestBuilder()
    builder.update(content)
    return builder.finish().chunks_sha256.hex()


@pytest.mark.parametrize("way", ["here", "calls"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_file_whose_chunks_are_told_is_hashed_by_its_chunks(
    here: Here, outputs: Outputs, monkeypatch: pytest.MonkeyPatch, size: int, way: str
) -> None:
    content = os.urandom(size)
    (here.folder / "a.bin").write_bytes(content)
    if way == "calls":
        monkeypatch.setattr(here, "open_output", lambda name: None)
    hashed = 0

    class Counted:
        def __init__(self) -> None:
            self._hash = sha256()
            self.digest = self._hash.digest

        def update(self, data: bytes) -> None:
            nonlocal hashed
            hashed += len(data)
            self._hash.update(data)

    said = said_of(content, chunks_sha256=chunks_sha256_of(content))
    builder = ManifestBuilder()
    builder.update(content)
    whole, sha256 = builder.finish(), hashlib.sha256
    with monkeypatch.context() as patch:
        patch.setattr(manifest_module.hashlib, "sha256", lambda *data: sha256(*data) if data else Counted())
        row = await outputs.fetch(cast(Runner, here), said)
    assert row.manifest == whole
    assert hashed == size * (1 if size > CHUNK_BYTES else 2)


@pytest.mark.parametrize("size", [6, CHUNK_BYTES + 6])
@pytest.mark.parametrize("lie", ["chunks_sha256", "content"])
async def test_a_file_that_has_not_the_chunks_that_its_event_says_is_refused(
    here: Here, outputs: Outputs, size: int, lie: str
) -> None:
    content = os.urandom(size)
    (here.folder / "a.bin").write_bytes(content if lie == "chunks_sha256" else bytes(size))
    told = "0" * 64 if lie == "chunks_sha256" else chunks_sha256_of(content)
    with pytest.raises(IntegrityError):
        await outputs.fetch(cast(Runner, here), said_of(content, chunks_sha256=told))
    assert list((outputs.root / ".part").iterdir()) == []
    assert not (outputs.root / here.fid).exists()


async def test_a_file_of_one_chunk_has_the_hash_of_that_chunk(here: Here, outputs: Outputs) -> None:
    (here.folder / "a.bin").write_bytes(b"123456")
    said = said_of(b"123456", sha256="0" * 64, chunks_sha256=chunks_sha256_of(b"123456"))
    with pytest.raises(IntegrityError):
        await outputs.fetch(cast(Runner, here), said)


async def test_what_does_not_get_to_the_disk_is_told_of_while_more_is_copied(
    here: Here, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    (here.folder / "a.bin").write_bytes(content)
    monkeypatch.setattr(outputs_module, "_COPY_BYTES", CHUNK_BYTES)
    failures = iter([OSError(errno.EIO, "broken")])

    def fsync(descriptor: int) -> None:
        for failure in failures:
            raise failure  # once: the kernel tells of it once

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CapacityError):
        await outputs.fetch(cast(Runner, here), said_of(content))


async def test_a_flow_that_changes_its_file_afterwards_changes_no_output(here: Here, outputs: Outputs) -> None:
    content = os.urandom(2 * CHUNK_BYTES)
    (here.folder / "a.bin").write_bytes(content)
    with (here.folder / "a.bin").open("r+b") as kept:
        await outputs.fetch(cast(Runner, here), said_of(content))
        kept.write(b"changed")
        kept.flush()
    assert (outputs.root / here.fid / "a.bin").read_bytes() == content


async def test_a_flow_that_changes_its_file_meanwhile_is_found_out(
    here: Here, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    (here.folder / "a.bin").write_bytes(content)
    copy = outputs_module._copy_range

    def changing(source: int, descriptor: int, count: int, at: int) -> int:
        (here.folder / "a.bin").write_bytes(b"x" * len(content))
        return copy(source, descriptor, count, at)

    monkeypatch.setattr(outputs_module, "_copy_range", changing)
    with pytest.raises(IntegrityError):
        await outputs.fetch(cast(Runner, here), said_of(content))


async def test_a_link_in_the_place_of_an_output_is_not_followed(here: Here, outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"of the node")
    (here.folder / "a.bin").symlink_to(tmp_path / "secret")
    assert here.open_output("a.bin") is None
