"""Outputs: fetched from the runner's machine, verified, kept under `outputs/<fid>/`, read in pieces.

A file gets its name only when it is complete and its hash is right, and it is on the disk before the event that
announces it is committed. Names come from flows: they are checked, and every folder on the way to a file is opened
without following links.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kodo.node.clock import awake_timeout
from kodo.node.executors.executor import Runner, RunnerDiedError
from kodo.node.store.rows import OutputRow
from kodo.p2p.errors import CapacityError, IntegrityError, KodoError, NotFoundError
from kodo.p2p.net.files import plain_descriptor
from kodo.protocol.ids import is_id
from kodo.protocol.manifest import CHUNK_BYTES, Manifest, ManifestBuilder, check_output_name
from kodo.protocol.room import ENDLESS, Promise, Room

__all__ = ["OUTPUT_ITEM_BYTES", "Outputs", "size_of"]

OUTPUT_ITEM_BYTES = 64 * 1024
"""Size of the pieces that `read` gives, at most."""

_FETCH_BYTES = 1 << 20
"""Bytes of one piece from another machine; of larger ones Ray keeps several in memory."""

_COPY_BYTES = 64 << 20
"""Bytes of a file of this machine that one thread copies before others have their turn."""

_NO_RANGES = frozenset([errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM])
"""Where copying within the kernel is not for these files, or this system, but reading and writing may be."""

_READ_BYTES = 1 << 20
_WRITE_BYTES = 256 << 10
"""Most bytes of one write: for a whole MiB ext4 looks for that much memory in one piece, seven times the CPU."""
_PARTS = ".part"
_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE])
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Outputs:
    """The folder of outputs.

    Args:
        root: `$KODO_HOME/outputs`; made on first use, mode 0700.
        room: on its disk.
        fetch_timeout: seconds that a runner on another machine has for each piece.
    """

    def __init__(self, root: Path, *, room: Room = ENDLESS, fetch_timeout: float = 60.0):
        self.root = root
        self._room = room
        self._fetch_timeout = fetch_timeout
        self._fetching: set[str] = set()
        self.taken = 0

    def open(self) -> None:
        """Make the folder, and clear away what an earlier process was fetching when it ended."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = self.root / _PARTS
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(mode=0o700, exist_ok=True)
        self.count()

    def count(self) -> None:
        """Count anew what all files take: `taken`."""
        self.taken = size_of(self.root)

    def check_room(self) -> None:
        """Check that there is room for anything.

        Raises:
            CapacityError: the disk, or the quota, is nearly full.
        """
        self._room.promise(0).close()

    async def fetch(self, runner: Runner, said: dict[str, Any]) -> OutputRow:
        """Fetch the file that an `output` event (its checked data) names; when this returns it is on the disk.

        Cancelling is safe: an unfinished file goes.

        Raises:
            IntegrityError: the runner's file is not what its event says, or a folder has its name.
            CapacityError: the disk is nearly full.
            NeverFitsError: it is too small even when all else is gone.
            RunnerDiedError: the runner is gone, or too slow.
        """
        with self._room.promise(int(said["size"])) as promise:
            return await self._fetch(runner, said, promise)

    async def _fetch(self, runner: Runner, said: dict[str, Any], promise: Promise) -> OutputRow:
        fid, name, size = runner.fid, check_output_name(said["name"]), int(said["size"])
        part = self.root / _PARTS / f"{fid}.{secrets.token_hex(8)}"
        self._fetching.add(part.name)
        chunks_sha256 = said.get("chunks_sha256")
        # What has these chunks is the file that its writer hashed as a whole; one of one chunk is that chunk.
        told = bytes.fromhex(said["sha256"]) if chunks_sha256 is not None and size > CHUNK_BYTES else None
        builder = ManifestBuilder(told)
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                source = await _in_thread(runner.open_output, name)
                if source is None:
                    await self._receive(runner, name, size, descriptor, builder, promise)
                else:
                    await _copy(source, size, descriptor, builder, promise)
                manifest = builder.finish()
                if (
                    manifest.size != size
                    or manifest.sha256.hex() != said["sha256"]
                    or chunks_sha256 not in (None, manifest.chunks_sha256.hex())
                ):
                    raise IntegrityError("an output does not have the size or hash that its event announced")
                await _in_thread(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            await _in_thread(self._place, part, fid, name)
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise CapacityError(f"an output could not be stored: {error.strerror}; free disk space") from error
            raise IntegrityError(f"an output cannot be stored under its name: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._fetching.discard(part.name)
        self.taken += size
        return OutputRow(name, said["media_type"], manifest)

    async def read(
        self, fid: str, name: str, manifest: Manifest, offset: int, length: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield `length` bytes from `offset` on (all, when None) in pieces of up to `OUTPUT_ITEM_BYTES`.

        Between two pieces no file is open, however long their reader takes. Cancelling is safe.

        Raises:
            NotFoundError: the file is gone.
            CapacityError: too many files are open in this process.
        """
        end = manifest.size if length is None else min(offset + length, manifest.size)
        while True:
            # Also of nothing: that tells whether the file is there.
            block = await asyncio.to_thread(self._block, fid, name, offset, min(_READ_BYTES, end - offset))
            for start in range(0, len(block), OUTPUT_ITEM_BYTES):
                yield block[start : start + OUTPUT_ITEM_BYTES]
            offset += len(block)
            if offset >= end:
                return
            if not block:
                raise NotFoundError("the file of this output was cut; ask the node's operator")

    def lost_parts(self) -> list[tuple[str, int]]:
        """Return the files in `.part` that nobody is fetching, with their bytes."""
        found = []
        for part in sorted((self.root / _PARTS).iterdir()):
            with contextlib.suppress(OSError):
                if part.name not in self._fetching:
                    found.append((part.name, part.lstat().st_size))
        return found

    def remove_part(self, name: str) -> None:
        """Remove a file of `lost_parts`.

        Raises:
            CapacityError: it cannot be removed.
        """
        if name not in self._fetching and name == os.path.basename(name):
            try:
                (self.root / _PARTS / name).unlink(missing_ok=True)
            except OSError as error:
                raise CapacityError(f"{name} could not be removed: {error.strerror}") from error

    async def remove(self, fid: str) -> None:
        """Remove all files of a run; there may be none.

        Raises:
            CapacityError: a file cannot be removed.
        """
        if not is_id(fid):
            raise KodoError("not a fid")
        try:
            self.taken -= await asyncio.to_thread(_remove, self.root / fid)
        except OSError as error:
            raise CapacityError(f"the outputs of {fid} could not be removed: {error.strerror}") from error

    async def _receive(
        self, runner: Runner, name: str, size: int, descriptor: int, builder: ManifestBuilder, promise: Promise
    ) -> None:
        """Take a file from another machine, a piece at a time."""
        while builder.size < size:
            piece = await self._piece(runner, name, builder.size, min(_FETCH_BYTES, size - builder.size))
            if not piece:
                break
            # Shielded: the thread must be done with the descriptor before it is closed.
            await _in_thread(_take, descriptor, builder, piece, promise)

    async def _piece(self, runner: Runner, name: str, offset: int, length: int) -> bytes:
        try:
            async with awake_timeout(self._fetch_timeout):
                piece = await runner.read_output(name, offset, length)
        except TimeoutError:
            raise RunnerDiedError(
                f"the runner sent no part of an output within {self._fetch_timeout:.0f} s"
            ) from None
        if len(piece) > length:
            raise IntegrityError("the runner sent more bytes than it was asked for")
        return piece

    def _place(self, part: Path, fid: str, name: str) -> None:
        """Move a complete file to its name, durably."""
        with self._folder(fid, name, make=True) as (folder, leaf):
            os.rename(part, leaf, dst_dir_fd=folder)
            os.fsync(folder)

    def _block(self, fid: str, name: str, offset: int, length: int) -> bytes:
        try:
            with self._folder(fid, check_output_name(name), make=False) as (folder, leaf):
                descriptor = plain_descriptor(Path(leaf), os.O_RDONLY, dir_fd=folder)
            try:
                return os.pread(descriptor, max(length, 0), offset)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise CapacityError("this node has too many files open; try again later") from error
            raise NotFoundError("the file of this output is gone") from error

    @contextlib.contextmanager
    def _folder(self, fid: str, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the folder in which `name` lies, step by step; give it with the file's own name."""
        if not is_id(fid):
            raise KodoError("not a fid")
        *folders, leaf = name.split("/")
        descriptor = os.open(self.root, _FOLDER)
        try:
            for folder in (fid, *folders):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=descriptor)
                        os.fsync(descriptor)
                inner = os.open(folder, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor, leaf
        finally:
            os.close(descriptor)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count as themselves."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(place) / name).lstat().st_size
    return size


def _remove(folder: Path) -> int:
    size = size_of(folder)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    return size


async def _copy(source: int, size: int, descriptor: int, builder: ManifestBuilder, promise: Promise) -> None:
    """Copy a file of this machine, and close it; what is hashed is the copy, which no flow can reach."""
    try:
        before = -1
        while before < builder.size < size:
            before = builder.size
            await _in_thread(_copy_some, source, min(size, before + _COPY_BYTES), descriptor, builder, promise)
    finally:
        os.close(source)


def _copy_some(source: int, end: int, descriptor: int, builder: ManifestBuilder, promise: Promise) -> None:
    """Copy up to byte `end`; what was copied is hashed, and what earlier calls copied goes to the disk, meanwhile."""
    at = builder.size
    hashes: list[Future[None]] = []
    with ThreadPoolExecutor(3, "kodo-copy") as others:
        stored = others.submit(os.fsync, descriptor) if at else None
        while at < end:
            with promise.writing(min(_READ_BYTES, end - at)):
                copied = _copy_range(source, descriptor, min(_READ_BYTES, end - at), at)
            piece = os.pread(descriptor, copied, at)
            if not piece:
                break
            at += len(piece)
            for each in hashes:
                each.result()
            hashes = [others.submit(half, piece) for half in (builder.update_whole, builder.update_chunks)]
        for each in hashes:
            each.result()
        if stored is not None:
            stored.result()


def _copy_range(source: int, descriptor: int, count: int, at: int) -> int:
    """Copy `count` bytes at an offset, where the system can within the kernel; return how many there were."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, descriptor, count, at, at)
        except OSError as error:
            if error.errno not in _NO_RANGES:
                raise
    return os.pwrite(descriptor, os.pread(source, count, at), at)


def _take(descriptor: int, builder: ManifestBuilder, piece: bytes, promise: Promise) -> None:
    view = memoryview(piece)
    with promise.writing(len(piece)):
        while view:
            view = view[os.write(descriptor, view[:_WRITE_BYTES]) :]
    builder.update(piece)


async def _in_thread(work: Any, *args: Any) -> Any:
    """Run blocking work in a thread; a cancelled wait still waits for its end, as it uses an open file."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future], timeout=30.0)
        raise
