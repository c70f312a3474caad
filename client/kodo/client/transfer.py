"""Downloads that are verified and resumable.

The whole is compared with its SHA-256 before the file gets its name. Until then the bytes lie in `.NAME.HASH.part`
beside it, where HASH is made of the file's own SHA-256 and size: a later download of the same content takes the part
up at its last good chunk, and one of other content cannot mistake it for its own. What the part is worth is read from
its bytes, by hashing them again chunk by chunk, never from a note about them.

While bytes arrive, only the hash of the whole is computed: a second hash would cost a sixth of the client's CPU, and
the session has proved already that they are what the node sent. Where the whole is wrong, the hashes of the chunks
show up to where it is right, and that much is kept.

What this system cannot store under its name is renamed, see `kodo.protocol.portable_names`.

The node is not trusted: names are checked again, and each directory on the way is opened relative to its parent
without following symbolic links, so that nothing is written outside the directory that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kodo.p2p.errors import CapacityError, DeadlineError, IntegrityError, NetworkError, PeerError, UsageError
from kodo.protocol.manifest import CHUNK_BYTES, Manifest, check_output_name
from kodo.protocol.portable_names import fold, stored_names
from kodo.protocol.room import ENDLESS, Promise, Room

__all__ = [
    "Download",
    "ManifestPage",
    "OnProgress",
    "Progress",
    "Source",
    "download",
    "fetch_manifest",
    "part_name",
]

PAGE_CHUNKS = 8192
"""Chunk hashes asked for at once: 256 KiB, well under the bound of a call frame."""

ATTEMPTS_WITHOUT_PROGRESS = 8
"""Broken streams in a row, none of which brought one good chunk, before a download gives up."""

_WRITE_BYTES = 256 << 10
"""Most bytes of one write: for a whole MiB ext4 looks for that much memory in one piece, which costs it seven times
the CPU."""

_FLUSH_CHUNKS = 64
"""Chunks after which what was written is sent to the disk while more arrive, so that little is left for the end."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ManifestPage:
    """Part of an output's manifest: `chunks` are the SHA-256 (`bytes[32]`) of the chunks from number `first` on."""

    size: int
    sha256: bytes
    first: int
    chunks: tuple[bytes, ...]


class Source(Protocol):
    """Where one run's outputs come from; `Run` gives one that redials."""

    async def manifest(self, name: str, first: int, count: int) -> ManifestPage:
        """Return the hashes of up to `count` chunks beginning with chunk `first`."""
        ...

    def read(self, name: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Return the bytes from `offset` on; raises NetworkError when the way breaks, and may then be asked again."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is: `done` and `size` are bytes of this file, `file` counts from 1."""

    name: str
    done: int
    size: int
    file: int
    files: int


@dataclass(frozen=True, slots=True)
class Download:
    """One verified file: `size` in bytes, `received` those that travelled now, `sha256` hex, `to` where it lies."""

    name: str
    size: int
    sha256: str
    to: Path
    received: int


OnProgress = Callable[[Progress], None]


async def fetch_manifest(source: Source, name: str, *, room: int | None = None) -> Manifest:
    """Fetch the whole manifest of the output `name` and check that it is consistent with itself.

    Args:
        room: bytes that may be stored; asked before the hashes are, since those of a huge size are many.

    Raises:
        IntegrityError: sizes, counts or hashes do not fit together.
        CapacityError: the output is larger than `room`.
    """
    first = await source.manifest(name, 0, PAGE_CHUNKS)
    size, sha256 = first.size, first.sha256
    if size < 0 or len(sha256) != 32:
        raise IntegrityError(f"the manifest of {name!r} has no valid size and SHA-256")
    if room is not None and size > room:
        raise CapacityError(
            f"{name!r} is {size} bytes, but there is room for {room}; free some space or choose another disk"
        )
    total = -(-size // CHUNK_BYTES)
    chunks: list[bytes] = list(first.chunks)
    while len(chunks) < total:
        before = len(chunks)
        page = await source.manifest(name, before, min(PAGE_CHUNKS, total - before))
        if (page.size, page.sha256, page.first) != (size, sha256, before) or not page.chunks:
            raise IntegrityError(f"the manifest of {name!r} changed while it was read")
        chunks += page.chunks
    if len(chunks) != total or any(len(chunk) != 32 for chunk in chunks):
        raise IntegrityError(f"the manifest of {name!r} has {len(chunks)} chunk hashes for {size} bytes")
    # A file of at most one chunk is its chunk; a longer one is proved by its whole hash at the end.
    if total < 2 and sha256 != (chunks[0] if chunks else hashlib.sha256().digest()):
        raise IntegrityError(f"the manifest of {name!r} contradicts itself")
    return Manifest(size, sha256, tuple(chunks))


def part_name(base: str, manifest: Manifest) -> str:
    """Return the name of the part that a download of this content, to be called `base`, is kept in."""
    tag = hashlib.sha256(manifest.sha256 + manifest.size.to_bytes(8) + base.encode()).hexdigest()[:16]
    head = base.encode()[:200].decode("utf-8", "ignore")
    return f".{head}.{tag}.part"


async def download(
    source: Source,
    names: list[str],
    directory: Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    retry_delay: Callable[[int], float] = lambda attempt: min(0.2 * 2**attempt, 5.0),
    room: Room = ENDLESS,
) -> list[Download]:
    """Download the outputs `names` into `directory` (made when it is not there), verified.

    Cancelling is safe: what came stays in the part, and the next download goes on from its last good chunk.

    Args:
        overwrite: replace a file of the same name and other content; otherwise that is an error.
        on_progress: called after every chunk, and once for a file that was there already.
        retry_delay: seconds to wait before attempt 1, 2, … after a break that followed no progress.
        room: asked for what is missing of each file before it is fetched, and for each chunk before it is written.

    Raises:
        UsageError: a file is in the way, or the directory cannot be used.
        PeerError: the node announced a name that no file may bear.
        IntegrityError: what came is not what was announced.
        CapacityError: the disk is full, or another download has the part open; the part is kept.
        NetworkError: the way broke and could not be made again.
    """
    for name in names:
        try:
            check_output_name(name)
        except ValueError as error:
            raise PeerError(f"the node announced an output that cannot be stored: {error}") from None
    if len(set(names)) != len(names):
        raise PeerError("the node announced two outputs of the same name")
    stored = stored_names(names, sys.platform)
    folded = {fold(name) for name in stored.values()}
    with _translated(directory):
        root = await asyncio.to_thread(_open_root, directory)
    done: list[Download] = []
    try:
        for number, name in enumerate(names, 1):
            report = _reporter(on_progress, name, number, len(names))
            done.append(
                await _download_one(
                    source, name, stored[name], directory, root, folded, overwrite, report, retry_delay, room
                )
            )
    finally:
        os.close(root)
    return done


def _reporter(on_progress: OnProgress | None, name: str, file: int, files: int) -> Callable[[int, int], None]:
    def report(done: int, size: int) -> None:
        if on_progress is not None:
            on_progress(Progress(name, done, size, file, files))

    return report


async def _download_one(
    source: Source,
    name: str,
    stored: str,
    directory: Path,
    root: int,
    folded: Collection[str],
    overwrite: bool,
    report: Callable[[int, int], None],
    retry_delay: Callable[[int], float],
    room: Room,
) -> Download:
    *parents, base = stored.split("/")
    target = directory / stored
    disk = os.fstatvfs(root)
    manifest = await fetch_manifest(source, name, room=disk.f_blocks * disk.f_frsize)
    with _translated(target), _opened_below(root, parents) as folder:
        if await asyncio.to_thread(_same_content, folder, base, manifest):
            report(manifest.size, manifest.size)
            return Download(name, manifest.size, manifest.sha256.hex(), target, 0)
        if not overwrite and _exists(folder, base):
            raise _in_the_way(target)
        part = part_name(base, manifest)
        if fold("/".join([*parents, part])) in folded:
            raise PeerError(
                f"the node announced an output {part!r}: {name!r} is the name of the part while it is downloaded"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o600, dir_fd=folder), "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CapacityError(f"another download of {target} is under way; wait for it") from None
            writer = _PartWriter(file.fileno(), name, manifest)
            await _in_thread(writer.resume)
            missing = manifest.size - writer.good
            free = disk.f_bavail * disk.f_frsize
            if missing > free:
                raise CapacityError(f"{target} needs {missing} more bytes, but the disk has {free} free; make room")
            had = writer.good
            report(had, manifest.size)
            try:
                with room.promise(missing) as writer.promise:
                    await _fill(source, name, writer, report, retry_delay)
            finally:
                await writer.flushed()
            await _in_thread(writer.verify)
            await _in_thread(os.fsync, file.fileno())
            os.chmod(file.fileno(), 0o666 & ~_umask())
            try:
                _give_name(folder, part, base, overwrite=overwrite)
            except FileExistsError:
                raise _in_the_way(target) from None
            await asyncio.to_thread(os.fsync, folder)
    return Download(name, manifest.size, manifest.sha256.hex(), target, manifest.size - had)


async def _fill(
    source: Source,
    name: str,
    writer: _PartWriter,
    report: Callable[[int, int], None],
    retry_delay: Callable[[int], float],
) -> None:
    """Read until the part is complete, over as many streams as it takes while each brings something."""
    failures = 0
    while not writer.complete:
        before = reported = writer.good
        try:
            try:
                async with contextlib.aclosing(source.read(name, before)) as pieces:
                    async for piece in pieces:
                        await writer.feed(piece)
                        if writer.good > reported:
                            reported = writer.good
                            report(reported, writer.size)
                        if writer.received == writer.size:
                            break
            finally:
                await writer.settle()
            if writer.good > reported:
                report(writer.good, writer.size)
            if not writer.complete:
                raise IntegrityError(f"the node ended {name!r} after {writer.received} of {writer.size} bytes")
        except (NetworkError, DeadlineError):
            failures = 0 if writer.good > before else failures + 1
            if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise
            writer.drop_pending()
            if failures:
                await asyncio.sleep(retry_delay(failures))


class _PartWriter:
    """The part on disk: takes bytes in order, writes them chunk by chunk, and hashes the whole.

    A chunk is hashed and written in a thread while the next one arrives; two buffers serve for all of them.
    """

    def __init__(self, handle: int, name: str, manifest: Manifest):
        self._handle = handle
        self._name = name
        self._manifest = manifest
        self._whole = hashlib.sha256()
        self._filling, self._storing = (memoryview(bytearray(min(CHUNK_BYTES, manifest.size))) for _ in range(2))
        self._filled = 0
        self._job: asyncio.Future[None] | None = None
        self._flush: asyncio.Future[None] | None = None
        self.size = manifest.size
        self.promise: Promise = ENDLESS
        self.good = 0
        """Bytes written: the next chunk begins here, or the one after it while one is being stored."""

    @property
    def complete(self) -> bool:
        return self.good == self.size

    @property
    def received(self) -> int:
        stored = self._chunk_size(self.good // CHUNK_BYTES) if self._job is not None else 0
        return self.good + stored + self._filled

    def drop_pending(self) -> None:
        self._filled = 0

    def resume(self) -> None:
        """Find how many whole chunks of the part are good, and cut off the rest."""
        self.good, self._whole = 0, hashlib.sha256()
        for index, expected in enumerate(self._manifest.chunks):
            chunk = os.pread(self._handle, self._chunk_size(index), index * CHUNK_BYTES)
            if len(chunk) != self._chunk_size(index) or hashlib.sha256(chunk).digest() != expected:
                break
            self._whole.update(chunk)
            self.good += len(chunk)
        os.ftruncate(self._handle, self.good)

    def verify(self) -> None:
        """Check a part that is complete; of one that is wrong, what is good up to its first bad chunk stays.

        Raises:
            IntegrityError: it is not what was announced.
        """
        if self._whole.digest() == self._manifest.sha256:
            return
        self.resume()
        if not self.complete:
            index = self.good // CHUNK_BYTES
            raise IntegrityError(f"chunk {index} of {self._name!r} does not have the hash that was announced")
        os.ftruncate(self._handle, 0)  # every chunk fits and the whole does not: nothing of it is worth keeping
        raise IntegrityError(f"{self._name!r} arrived whole, but its SHA-256 is not the one announced")

    async def feed(self, data: bytes) -> None:
        """Take bytes that follow those taken before; waits while two chunks are unfinished.

        Raises:
            IntegrityError: there are more than announced.
            OSError: the chunk before could not be written.
        """
        received = self.received
        if received + len(data) > self.size:
            raise IntegrityError(f"the node sent more than the {self.size} bytes of {self._name!r} that it announced")
        view = memoryview(data)
        while view:
            index = (received - self._filled) // CHUNK_BYTES
            length = self._chunk_size(index)
            count = min(len(view), length - self._filled)
            self._filling[self._filled : self._filled + count] = view[:count]
            self._filled += count
            received += count
            view = view[count:]
            if self._filled == length:
                await self.settle()
                self._filling, self._storing = self._storing, self._filling
                self._filled = 0
                loop = asyncio.get_running_loop()
                self._job = loop.run_in_executor(None, self._store, index, self._storing[:length])
                if index % _FLUSH_CHUNKS == _FLUSH_CHUNKS - 1 and (self._flush is None or self._flush.done()):
                    await self.flushed()  # an error is told once, to whoever asks first
                    self._flush = loop.run_in_executor(None, os.fsync, self._handle)

    async def flushed(self) -> None:
        """Wait until nothing is on its way to the disk; a cancelled wait still waits for it.

        Raises:
            OSError: it did not get there.
        """
        if self._flush is not None:
            await _finished(self._flush)

    async def settle(self) -> None:
        """Wait until what was taken up to the last whole chunk is stored; a cancelled wait still waits for it.

        Raises:
            OSError: it could not be written.
        """
        if (job := self._job) is None:
            return
        try:
            await _finished(job)
        finally:
            if self._job is job:
                self._job = None
                if job.exception() is None:
                    self.good += self._chunk_size(self.good // CHUNK_BYTES)

    def _chunk_size(self, index: int) -> int:
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    def _store(self, index: int, chunk: memoryview) -> None:
        view, at = chunk, index * CHUNK_BYTES
        with self.promise.writing(len(chunk)):
            while view:
                written = os.pwrite(self._handle, view[:_WRITE_BYTES], at)
                view, at = view[written:], at + written
        self._whole.update(chunk)


async def _in_thread(work: Callable[..., None], *args: int) -> None:
    """Do what blocks in a thread: see `_finished`."""
    await _finished(asyncio.get_running_loop().run_in_executor(None, work, *args))


async def _finished(job: asyncio.Future[None]) -> None:
    """Wait for the work of a thread; a cancelled wait still waits for its end, as it uses the open file."""
    try:
        await asyncio.shield(job)
    finally:
        while not job.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([job])


def _open_root(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def _opened_below(root: int, parents: Sequence[str]) -> Iterator[int]:
    """Open the directory `parents` below `root`, making what is missing and following no symbolic link."""
    handle = os.dup(root)
    try:
        for parent in parents:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, 0o777, dir_fd=handle)
            try:
                inner = os.open(parent, _DIRECTORY, dir_fd=handle)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise UsageError(
                        f"{parent!r} in the target directory is a link or a file, not a folder"
                    ) from None
                raise
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _in_the_way(target: Path) -> UsageError:
    return UsageError(f"{target} exists with other content; move it away, or use --overwrite")


def _give_name(folder: int, part: str, base: str, *, overwrite: bool) -> None:
    """Call the part `base`. Unless it may be overwritten, a file of that name stays, whenever it came.

    Raises:
        FileExistsError: there is one.
    """
    if not overwrite:
        try:
            os.link(part, base, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # No hard links on this disk: an empty file of ours holds the name until the next line replaces it.
            os.close(os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        else:
            os.unlink(part, dir_fd=folder)
            return
    os.replace(part, base, src_dir_fd=folder, dst_dir_fd=folder)


def _exists(folder: int, base: str) -> bool:
    try:
        os.stat(base, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _same_content(folder: int, base: str, manifest: Manifest) -> bool:
    try:
        handle = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_size != manifest.size:
            return False
        try:
            return hashlib.file_digest(file, "sha256").digest() == manifest.sha256
        except OSError:
            return False


def _umask() -> int:
    value = os.umask(0o077)
    os.umask(value)
    return value


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except (TimeoutError, ConnectionError):
        raise  # of the network, not of the disk
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CapacityError(
                f"the disk has no room for the rest of {target}; what arrived is kept: make room and download again"
            ) from error
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
