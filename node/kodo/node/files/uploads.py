"""Uploads: files that callers send ahead of a launch, to be named in its inputs.

One folder each, `uploads/<id>/` with `meta.json` and `data`. Only whole chunks of 1 MiB count (and the last one): a
cut upload goes on at its last chunk, in this process or the next. What is complete has the SHA-256 that was
announced; anything else is removed. An upload belongs to the principal who made it; for others it does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kodo.access.places import Places
from kodo.node.clock import Clock
from kodo.node.executors.executor import InputFile
from kodo.p2p.errors import CallError, CapacityError
from kodo.p2p.net.files import open_plain, opened, plain_descriptor
from kodo.protocol.args.files import InputWriteArgs
from kodo.protocol.manifest import CHUNK_BYTES, check_output_name
from kodo.protocol.room import ENDLESS, Promise, Room
from kodo.protocol.uploads import find_uploads, is_upload_id, wants_files

__all__ = ["MIN_RATE", "PIECE_S", "UploadLimits", "Uploads", "timely"]

PIECE_S = 60.0
"""Seconds in which the next bytes of a call that brings some must come."""

MIN_RATE = 1024
"""Bytes a second that a call must bring on average, but for `PIECE_S` seconds: a place is for those who send."""

_DATA = "data"
_META = "meta.json"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds, per payer but for `file_bytes` and `calls`.

    Attributes:
        file_bytes: of one upload.
        total_bytes: of all uploads, as announced.
        uploads: how many.
        keep_s: seconds until one that nobody writes to, and no unfinished run names, is removed.
        piece_s: seconds in which the next bytes of a call must come; see `timely`.
        calls: that write at once, in all.
        calls_each: the same.
    """

    file_bytes: int = 16 << 30
    total_bytes: int = 32 << 30
    uploads: int = 4096
    keep_s: float = 24 * 3600.0
    piece_s: float = PIECE_S
    calls: int = 64
    calls_each: int = 16


@dataclass(slots=True)
class _Upload:
    uid: str
    principal: str
    name: str
    size: int
    sha256: str
    chunks: tuple[bytes, ...]
    touched: int  # ms UTC
    complete: bool = False
    reached: int = 0
    counted: int = 0  # what it takes, without what is being written: that is promised
    writing: bool = False
    payer: str = ""  # of whom it counts; its principal unless it is said
    hasher: Any = field(default=None)  # of the first `reached` bytes; None after a restart

    def __post_init__(self) -> None:
        self.payer = self.payer or self.principal

    @property
    def content(self) -> tuple[str, str, int, str]:
        return self.principal, self.name, self.size, self.sha256

    def told(self) -> dict[str, Any]:
        return {"upload": self.uid, "offset": self.reached, "complete": self.complete}

    def meta(self) -> dict[str, Any]:
        names = ("principal", "payer", "name", "size", "sha256", "touched", "complete")
        said = {name: getattr(self, name) for name in names}
        return {**said, "chunks": [chunk.hex() for chunk in self.chunks]}


class Uploads:
    """The folder of uploads.

    Args:
        root: `$KODO_HOME/uploads`; mode 0700.
        new_id: gives a fresh id of 26 characters.
        room_of: gives the room on its disk for whoever sends; see `Ledger.share_of`.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        room_of: Callable[[str], Room] = lambda payer: ENDLESS,
        limits: UploadLimits | None = None,
    ):
        self.root = root
        self.limits = limits or UploadLimits()
        self._clock = clock
        self._new_id = new_id
        self._room_of = room_of
        self._writing = Places("uploads", most=self.limits.calls, each=self.limits.calls_each)
        self._all: dict[str, _Upload] = {}
        self._by_content: dict[tuple[str, str, int, str], _Upload] = {}
        self._count: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._kept: Callable[[], Set[str]] = frozenset

    def open(self) -> None:
        """Make the folder, take up what an earlier process left, remove what cannot be used."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.root, 0o700)
        for folder in list(self.root.iterdir()):
            upload = _load(folder) if is_upload_id(folder.name) else None
            if upload is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._enter(upload)

    async def write(
        self, principal: str, args: InputWriteArgs, pieces: AsyncIterator[bytes], *, payer: str = ""
    ) -> dict[str, Any]:
        """Begin or go on with an upload; gives `upload, offset` (bytes that are safe) and `complete`.

        Without `upload` one of the same principal, name, size and hash is gone on with. `pieces` begin at
        `args.offset`; what is there already is passed over. Cancelling is safe.

        Args:
            payer: against whose bounds the upload counts; empty: the principal's.

        Raises:
            CallError: 400 `bad-args`, 404 `no-such-upload`, 409 `busy` `bad-offset` `other-upload`, 413 `too-large`,
                422 `bad-hash`, 429 `too-many-uploads` `busy`.
            CapacityError: the disk is nearly full.
            DeadlineError: the caller sends nothing.
        """
        payer = payer or principal
        with self._writing.hold(payer):
            return await self._write_in_place(principal, args, pieces, payer)

    async def _write_in_place(
        self, principal: str, args: InputWriteArgs, pieces: AsyncIterator[bytes], payer: str
    ) -> dict[str, Any]:
        upload = self._find(principal, args)
        if upload is None:
            self._check(payer, args)
            with self._room_of(payer).promise(args.size) as promise:
                upload = await self._make(principal, payer, args)
                return await self._go_on(upload, args.offset or 0, pieces, promise)
        if upload.writing:
            raise CallError(
                409,
                "busy",
                "this upload is being written by another call",
                {"retry_after_ms": 1000, "upload": upload.uid},
            )
        if upload.complete:
            upload.touched = self._clock.now_ms()
            return upload.told()
        with self._room_of(payer).promise(upload.size - upload.reached) as promise:
            return await self._go_on(upload, args.offset or 0, pieces, promise)

    async def _go_on(
        self, upload: _Upload, offset: int, pieces: AsyncIterator[bytes], promise: Promise
    ) -> dict[str, Any]:
        upload.writing = True
        try:
            with _disk_told():
                await self._write(upload, offset, pieces, promise)
        finally:
            upload.writing = False
            upload.counted = upload.reached
            upload.touched = self._clock.now_ms()
        return upload.told()

    def check(self, principal: str, schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Check that the uploads that inputs name are there and whole; they are kept on from now.

        Raises:
            CallError: 404 `no-such-upload`, 409 `upload-unfinished` with `offset`.
        """
        if not wants_files(schema):
            return
        for uid in find_uploads(inputs):
            upload = self._own(principal, uid)
            if upload is None:
                raise _no_such_upload(uid)
            if not upload.complete:
                data = {"upload": uid, "offset": upload.reached}
                raise CallError(409, "upload-unfinished", f"the upload {uid} is not complete; send the rest", data)
            upload.touched = self._clock.now_ms()

    def absent(self, principal: str, schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
        """Name the inputs that are, or hold, an upload which is not there any more, or never was this principal's."""
        if not wants_files(schema):
            return []
        owned = {name: [self._own(principal, uid) for uid in find_uploads(value)] for name, value in inputs.items()}
        return [name for name, found in owned.items() if any(each is None or not each.complete for each in found)]

    def files(self, principal: str, inputs: Mapping[str, Any]) -> tuple[InputFile, ...]:
        """Return the complete uploads of this principal that inputs name, each once."""
        found = (self._own(principal, uid) for uid in dict.fromkeys(find_uploads(inputs)))
        return tuple(
            InputFile(each.uid, each.name, self.root / each.uid / _DATA, each.size, each.sha256)
            for each in found
            if each is not None and each.complete
        )

    def keep(self, kept: Callable[[], Set[str]]) -> None:
        """Keep uploads whose ids `kept` returns from going stale."""
        self._kept = kept

    def stale(self, in_use: Iterable[str] = ()) -> list[tuple[str, int]]:
        """Return id and bytes of each upload that may go; `in_use`: those of the runs that are not over."""
        untouched = sorted(filter(self._untouched, self._all.values()), key=lambda each: each.touched)
        if not untouched:
            return []  # what many runs use is asked for only then
        needed = {*in_use, *self._kept()}
        return [(each.uid, each.reached) for each in untouched if each.uid not in needed]

    async def drop(self, uid: str) -> None:
        """Remove an upload that was stale, unless a launch has named it or a call writes it since.

        One that is gone already is no error.
        """
        upload = self._all.get(uid)
        if upload is not None and self._untouched(upload):
            await self._remove(upload)

    def _untouched(self, upload: _Upload) -> bool:
        return not upload.writing and upload.touched < self._clock.now_ms() - self.limits.keep_s * 1000

    async def sweep(self, in_use: Iterable[str] = ()) -> None:
        """Remove what is stale."""
        for uid, _ in self.stale(in_use):
            await self.drop(uid)

    @property
    def taken(self) -> int:
        """What all of them take, without what is being written."""
        return sum(each.counted for each in self._all.values())

    # --- inside ---

    def _own(self, principal: str, uid: str) -> _Upload | None:
        upload = self._all.get(uid)
        return upload if upload is not None and upload.principal == principal else None

    def _find(self, principal: str, args: InputWriteArgs) -> _Upload | None:
        content = principal, args.name, args.size, args.sha256
        if args.upload is None:
            return self._by_content.get(content)
        upload = self._own(principal, args.upload)
        if upload is None:
            raise _no_such_upload(args.upload)
        if upload.content != content:
            raise CallError(409, "other-upload", "name, size or sha256 are not those that this upload began with")
        return upload

    def _check(self, payer: str, args: InputWriteArgs) -> None:
        """Check that a new upload is within the bounds."""
        try:
            check_output_name(args.name)
        except ValueError as error:
            raise CallError(400, "bad-args", f"input.write: name: {error}", {"arg": "name"}) from None
        if args.chunks is not None and len(args.chunks) != -(-args.size // CHUNK_BYTES):
            why = "there must be one hash for each started MiB"
            raise CallError(400, "bad-args", f"input.write: chunks: {why}", {"arg": "chunks"})
        if args.size > self.limits.file_bytes:
            raise CallError(413, "too-large", f"an upload has at most {self.limits.file_bytes} bytes")
        count = self._count[payer]
        if count >= self.limits.uploads or self._bytes[payer] + args.size > self.limits.total_bytes:
            raise CallError(
                429,
                "too-many-uploads",
                f"you have {count} uploads here; a node keeps at most {self.limits.uploads} of them, with"
                f" {self.limits.total_bytes} bytes in all, for {self.limits.keep_s / 3600:g} h each",
                {"retry_after_ms": 60_000},
            )

    async def _make(self, principal: str, payer: str, args: InputWriteArgs) -> _Upload:
        uid = f"upload-{self._new_id()}"
        upload = _Upload(
            uid, principal, args.name, args.size, args.sha256, tuple(args.chunks or ()), self._clock.now_ms()
        )
        upload.payer = payer
        upload.hasher = hashlib.sha256()
        upload.writing = True
        self._enter(upload)
        try:
            with _disk_told():
                await _in_thread(self._create, upload)
        except BaseException:
            await self._remove(upload)
            raise
        return upload

    async def _write(self, upload: _Upload, offset: int, pieces: AsyncIterator[bytes], promise: Promise) -> None:
        if offset > upload.reached:
            raise CallError(
                409,
                "bad-offset",
                f"this upload continues at byte {upload.reached}, not at {offset}",
                {"offset": upload.reached, "upload": upload.uid},
            )
        data = self.root / upload.uid / _DATA
        if upload.hasher is None:
            upload.hasher = await _in_thread(_hash_of, data, upload.reached)
        passed = upload.reached - offset
        pending = bytearray()
        # Between two chunks no file is open, however long the next one takes.
        async for piece in timely(pieces, self.limits.piece_s):
            skipped = min(passed, len(piece))
            passed -= skipped
            pending += memoryview(piece)[skipped:]
            if upload.reached + len(pending) > upload.size:
                raise CallError(413, "too-large", f"more than the announced {upload.size} bytes arrived")
            while len(pending) >= CHUNK_BYTES:
                await self._take(upload, data, bytes(pending[:CHUNK_BYTES]), promise)
                del pending[:CHUNK_BYTES]
        if upload.reached + len(pending) == upload.size:
            if pending:
                await self._take(upload, data, bytes(pending), promise)
            await _in_thread(_sync, data)
        if upload.reached == upload.size:
            await self._finish(upload)

    async def _take(self, upload: _Upload, data: Path, chunk: bytes, promise: Promise) -> None:
        index = upload.reached // CHUNK_BYTES
        hasher = upload.hasher

        def store() -> None:
            if upload.chunks and hashlib.sha256(chunk).digest() != upload.chunks[index]:
                raise CallError(
                    422, "bad-hash", f"chunk {index} does not have the announced hash", {"offset": upload.reached}
                )
            view, at = memoryview(chunk), upload.reached
            with promise.writing(len(chunk)), opened(data, os.O_WRONLY | os.O_NOFOLLOW) as descriptor:
                while view:
                    written = os.pwrite(descriptor, view, at)
                    view, at = view[written:], at + written
            hasher.update(chunk)
            upload.reached = at

        await _in_thread(store)

    async def _finish(self, upload: _Upload) -> None:
        if upload.hasher.hexdigest() != upload.sha256:
            await self._remove(upload)
            raise CallError(422, "bad-hash", "the file does not have the announced SHA-256; it was removed")
        upload.complete, upload.hasher = True, None
        await _in_thread(self._save, upload)

    def _create(self, upload: _Upload) -> None:
        folder = self.root / upload.uid
        folder.mkdir(mode=0o700)
        os.close(os.open(folder / _DATA, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._save(upload)

    def _save(self, upload: _Upload) -> None:
        folder = self.root / upload.uid
        new = folder / f"{_META}.new"
        with open(plain_descriptor(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            json.dump(upload.meta(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / _META)

    def _enter(self, upload: _Upload) -> None:
        """Count an upload; what is asked of many is counted and not searched for."""
        self._all[upload.uid] = upload
        self._by_content.setdefault(upload.content, upload)
        self._count[upload.payer] += 1
        self._bytes[upload.payer] += upload.size

    async def _remove(self, upload: _Upload) -> None:
        if self._all.pop(upload.uid, None) is not None:
            if self._by_content.get(upload.content) is upload:
                del self._by_content[upload.content]
            self._count[upload.payer] -= 1
            self._bytes[upload.payer] -= upload.size
            if not self._count[upload.payer]:
                del self._count[upload.payer], self._bytes[upload.payer]
        await asyncio.to_thread(shutil.rmtree, self.root / upload.uid, ignore_errors=True)


def _load(folder: Path) -> _Upload | None:
    """Read one that an earlier process left; None: it is of no use."""
    try:
        with open_plain(folder / _META) as file:
            said = json.load(file)
        chunks = tuple(bytes.fromhex(chunk) for chunk in said.pop("chunks"))
        upload = _Upload(uid=folder.name, chunks=chunks, **said)
        size = (folder / _DATA).stat(follow_symlinks=False).st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if upload.complete:
        upload.reached = upload.counted = size
        return upload if size == upload.size else None
    upload.reached = upload.counted = min(size, upload.size) // CHUNK_BYTES * CHUNK_BYTES
    return upload


@contextlib.contextmanager
def _disk_told() -> Iterator[None]:
    """Report a full disk as what it is: a refusal that passes, and no fault of the node.

    Raises:
        CapacityError: inside, a write failed as on a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE):
            raise CapacityError(f"the upload could not be stored: {error.strerror}; free disk space") from error
        raise


def _sync(data: Path) -> None:
    with opened(data, os.O_WRONLY | os.O_NOFOLLOW) as descriptor:
        os.fsync(descriptor)


def _hash_of(data: Path, size: int) -> Any:
    hasher = hashlib.sha256()
    with open_plain(data) as file:
        while size:
            piece = file.read(min(CHUNK_BYTES, size))
            if not piece:
                raise OSError(errno.EIO, "the upload's file is shorter than it was")
            hasher.update(piece)
            size -= len(piece)
    return hasher


async def timely(pieces: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """Yield the pieces as long as each comes in time, and all of them at a rate; their use takes no time.

    Args:
        seconds: how long one piece may take, and how long may be waited in all for a caller that sends too little.

    Raises:
        CallError: 408 `too-slow`: the caller fell silent, or brings less than `MIN_RATE` bytes a second.
    """
    loop = asyncio.get_running_loop()
    waited, received = 0.0, 0
    while True:
        left = seconds + received / MIN_RATE - waited
        began = loop.time()
        try:
            async with asyncio.timeout(max(min(seconds, left), 0.0)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            why = f"no byte arrived for {seconds:g} s"
            if left < seconds:
                why = f"fewer than {MIN_RATE} bytes a second arrived"
            raise CallError(408, "too-slow", f"{why}; resume the upload where it stopped") from None
        waited += loop.time() - began
        received += len(piece)
        yield piece


async def _in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Run blocking work in a thread; a cancelled wait still waits for its end, as it uses an open file."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await asyncio.wait([future], timeout=30.0)
        raise


def _no_such_upload(uid: str) -> CallError:
    return CallError(404, "no-such-upload", f"there is no upload {uid[:64]!r} of yours here; it may have expired")
