"""Uploads: files sent ahead of a launch, in chunks that are verified; one that was cut goes on where it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.client.peer import ATTEMPTS, Backoff, RemoteNode
from kodo.client.transfer import OnProgress, Progress
from kodo.p2p.errors import CallError, DeadlineError, IntegrityError, NetworkError, PeerError, UsageError
from kodo.p2p.net.calls import Call
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from kodo.protocol.uploads import is_upload_id

__all__ = ["files_in", "send_file", "upload", "upload_inputs"]

UPLOAD_ITEM_BYTES = 64 * 1024
STALL_SECONDS = 60.0
"""How long an upload may stand still before it is tried again."""

MAX_FOLDER_FILES = 1000
"""Files of one folder that stands for them in a list."""

MAX_CHUNKS = 16384
"""Chunk hashes that fit a call; a larger file is proved by its whole hash alone."""


@dataclass(slots=True)
class _Place:
    uid: str
    offset: int
    complete: bool


def files_in(value: Any) -> list[Path]:
    """Find the `Path`s inside inputs, each once."""
    found: dict[Path, None] = {}

    def look(part: Any) -> None:
        if isinstance(part, Path):
            found[part] = None
        elif isinstance(part, Mapping):
            for each in part.values():
                look(each)
        elif isinstance(part, (list, tuple)):
            for each in part:
                look(each)

    look(value)
    return list(found)


def _without_folders(part: Any, names: dict[Path, str]) -> Any:
    """Return inputs with the files of each folder in its place, and their names from it on in `names`. Blocks."""
    if isinstance(part, Mapping):
        return {key: _without_folders(each, names) for key, each in part.items()}
    if not isinstance(part, (list, tuple)):
        return part
    found: list[Any] = []
    for each in part:
        if isinstance(each, Path) and each.is_dir():
            inside = _files_of(each)
            names.update({file: (Path(each.resolve().name) / file.relative_to(each)).as_posix() for file in inside})
            found += inside
        else:
            found.append(_without_folders(each, names))
    return found


def _files_of(folder: Path) -> list[Path]:
    # Hidden ones are what tools keep there; links lead to other places.
    inside: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        inside += [file for file in files if file.is_file() and not file.is_symlink()]
        if len(inside) > MAX_FOLDER_FILES:
            raise UsageError(f"{folder} has more than {MAX_FOLDER_FILES} files; zip it to upload it")
    if not inside:
        raise UsageError(f"{folder} has no files in it")
    return inside


async def upload_inputs(
    remote: RemoteNode, inputs: Mapping[str, Any], *, patience: float, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Upload every `Path` inside `inputs`; give the inputs with the uploads' ids in their places.

    A folder in a list stands for all files in it, in the order of their names, which begin with the folder's own.

    Raises:
        UsageError: a folder stands elsewhere, or has too many files or none.
    """
    names: dict[Path, str] = {}
    if files_in(inputs):
        inputs = await asyncio.to_thread(_without_folders, inputs, names)
    paths = files_in(inputs)
    ids: dict[Path, str] = {}
    for number, path in enumerate(paths, 1):
        ids[path] = await upload(
            remote,
            path,
            patience=patience,
            on_progress=on_progress,
            file=number,
            files=len(paths),
            name=names.get(path),
        )

    def fill(part: Any) -> Any:
        if isinstance(part, Path):
            return ids[part]
        if isinstance(part, Mapping):
            return {key: fill(each) for key, each in part.items()}
        return [fill(each) for each in part] if isinstance(part, (list, tuple)) else part

    return {name: fill(part) for name, part in inputs.items()}


async def upload(
    remote: RemoteNode,
    path: Path,
    *,
    patience: float,
    on_progress: OnProgress | None = None,
    file: int = 1,
    files: int = 1,
    name: str | None = None,
) -> str:
    """Send a file and give the upload's id. What the node has already, of an earlier try too, is not sent again.

    Cancelling is safe.

    Args:
        patience: seconds without progress after which a lost node is given up.
        name: what the node calls it, with the folders that it was in; None: its name.

    Raises:
        UsageError: the file cannot be read.
        CallError: the node refuses it.
        IntegrityError: the file changed while it was sent.
        NetworkError, DeadlineError: the node was lost.
    """
    args = {**await _args_of(path), "name": name or path.name}
    backoff = Backoff(patience, asyncio.get_running_loop().time)
    reached = -1
    while True:
        try:
            place = await _place(remote, args)
            if place.offset > reached:
                backoff.succeeded()
                reached = place.offset
            if on_progress is not None:
                on_progress(Progress(path.name, place.offset, args["size"], file, files))
            if place.complete:
                return place.uid
            await _send(remote, path, args, place, on_progress, file, files)
            continue
        except (NetworkError, DeadlineError) as error:
            lost: Exception = error
        except CallError as error:
            if error.reason == "bad-hash":
                raise IntegrityError(f"{path} changed while it was uploaded, or arrived wrong: {error}") from error
            if error.reason == "bad-args" and "/" in args["name"]:  # an older node takes no folders
                args["name"] = path.name
                continue
            if error.reason not in ("busy", "too-slow") and error.code != 503 and not await remote.may_go_on(error):
                raise
            lost = error
        delay = backoff.delay()
        if delay is None:
            raise lost
        await asyncio.sleep(delay)


async def send_file(remote: RemoteNode, op: str, args: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Make a call that takes a whole file after its args, which get its `size` and `sha256`; begun anew when cut.

    Raises:
        UsageError: the file cannot be read.
        CallError: the node refuses it.
        NetworkError, DeadlineError: the node was lost.
    """
    about = await _args_of(path)
    args = {**args, "size": about["size"], "sha256": about["sha256"]}

    async def pieces() -> AsyncGenerator[bytes, None]:
        descriptor, offset = os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0
        try:
            while piece := os.pread(descriptor, UPLOAD_ITEM_BYTES, offset):
                yield piece
                offset += len(piece)
        finally:
            os.close(descriptor)

    for attempt in range(1, ATTEMPTS + 1):
        session = await remote.session()
        try:
            async with (
                aclosing(pieces()) as stream,
                Call(session, op, args, upload=stream, timeout=None) as call,
            ):
                return dict(await call.done())
        except NetworkError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def _args_of(path: Path) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, and one file is wanted; zip it to upload it")
        builder = ManifestBuilder()
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                builder.update(piece)
        manifest = builder.finish()
        args = {"name": path.name, "size": manifest.size, "sha256": manifest.sha256.hex()}
        return {**args, "chunks": list(manifest.chunks)} if len(manifest.chunks) <= MAX_CHUNKS else args

    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


async def _place(remote: RemoteNode, args: Mapping[str, Any]) -> _Place:
    """Begin the upload, or learn how far it is; sends no byte of the file."""
    answer = await remote.request("input.write", args)
    try:
        place = _Place(str(answer["upload"]), int(answer["offset"]), bool(answer.get("complete")))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError(f"the answer of {remote} to input.write is malformed") from None
    if not is_upload_id(place.uid) or not 0 <= place.offset <= args["size"]:
        raise PeerError(f"the answer of {remote} to input.write is malformed")
    return place


async def _send(
    remote: RemoteNode,
    path: Path,
    args: Mapping[str, Any],
    place: _Place,
    on_progress: OnProgress | None,
    file: int,
    files: int,
) -> None:
    """Send what is missing in one call; it ends when the node has it, or when nothing moves any more."""
    sent = place.offset

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while sent < args["size"]:
                block = os.pread(descriptor, min(CHUNK_BYTES, args["size"] - sent), sent)
                if not block:
                    return
                for start in range(0, len(block), UPLOAD_ITEM_BYTES):
                    yield block[start : start + UPLOAD_ITEM_BYTES]
                    sent += len(block[start : start + UPLOAD_ITEM_BYTES])
                if on_progress is not None:
                    on_progress(Progress(path.name, sent, args["size"], file, files))
        finally:
            os.close(descriptor)

    session = await remote.session()
    head = {key: value for key, value in args.items() if key != "chunks"}
    about = {**head, "upload": place.uid, "offset": place.offset}
    async with (
        aclosing(pieces()) as stream,
        Call(session, "input.write", remote.about(about), upload=stream, timeout=None) as call,
    ):
        ending = asyncio.ensure_future(call.done())
        try:
            while not ending.done():
                before = sent
                await asyncio.wait([ending], timeout=STALL_SECONDS)
                if not ending.done() and sent == before:
                    raise DeadlineError(f"{remote} accepts no more of {path.name}")
            answer = ending.result()
        finally:
            ending.cancel()
            await asyncio.wait([ending])
    if not isinstance(answer, Mapping) or not answer.get("complete"):
        raise IntegrityError(f"{path} is shorter than it was when its upload began")
