"""A run's files as an app written for kodosumi sees them: `in/` has those of its inputs, `out/` its outputs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kodo.flow._runtime.current import current
from kodo.p2p.errors import UsageError

__all__ = ["AsyncFileSystem", "SyncFileSystem"]

CHUNK_BYTES = 1 << 20


class SyncFileSystem:
    """Files by path, as `in/data.csv`. What `upload` takes are outputs, which cannot be removed again."""

    def __init__(self, files: Mapping[str, Path]):
        self._in = {f"in/{name}": path for name, path in files.items()}
        self._out: dict[str, Path] = {}

    def ls(self, path: str = "in") -> list[dict[str, Any]]:
        """Return `{path, size, last_modified}` (bytes; seconds since 1970) of each file at or below a path.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the path is neither in `in` nor in `out`.
        """
        return [
            {"path": name, "size": info.st_size, "last_modified": info.st_mtime, "is_directory": False}
            for name, place in self._below(path)
            for info in (place.stat(),)
        ]

    def open(self, path: str) -> SyncFile:
        """Return a file; it is opened when it is read, or as a context.

        Raises:
            FileNotFoundError: there is none.
        """
        return SyncFile(self, path, self._place(path))

    def download(self, path: str = "in") -> Iterator[str]:
        """Copy files to a temporary folder, and yield their paths there.

        Raises:
            FileNotFoundError: there is none.
        """
        folder = Path(tempfile.mkdtemp(prefix="kodosumi-"))
        root = PurePosixPath(_clean(path))
        for name, place in self._below(path):
            whole = PurePosixPath(name)
            to = folder / (whole.name if whole == root else whole.relative_to(root))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, to)
            yield str(to)

    def upload(self, path: str) -> list[str] | None:
        """Make outputs of a file, or of all files below a folder; give their names, None when there is none.

        Raises:
            UsageError: there is an output of that name already.
        """
        place = Path(path)
        base = place if place.is_dir() else place.parent
        found = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
        names = []
        for each in (each for each in found if each.is_file()):
            name = each.relative_to(base).as_posix()
            current().write_output(name, each, None)
            self._out[f"out/{name}"] = each
            names.append(name)
        return names or None

    def remove(self, path: str) -> bool:
        """Remove a file of the inputs.

        Raises:
            FileNotFoundError: there is none.
            UsageError: it is an output.
        """
        place = self._place(path)
        if _clean(path) in self._out:
            raise UsageError(f"{path} is an output of the run, which its clients have seen: it cannot be removed")
        place.unlink(missing_ok=True)
        del self._in[_clean(path)]
        return True

    def close(self) -> None:
        """Do nothing: files are of this machine."""

    def __enter__(self) -> SyncFileSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _below(self, path: str) -> list[tuple[str, Path]]:
        root = _clean(path)
        known = {**self._in, **self._out}
        found = [(name, place) for name, place in known.items() if name == root or name.startswith(root + "/")]
        if not found:
            raise FileNotFoundError(path)
        return found

    def _place(self, path: str) -> Path:
        place = {**self._in, **self._out}.get(_clean(path))
        if place is None:
            raise FileNotFoundError(path)
        return place


class SyncFile:
    """One file, to be read."""

    def __init__(self, files: SyncFileSystem, path: str, place: Path):
        self._files, self._path, self._place = files, path, place
        self._file: IO[bytes] | None = None

    def read(self) -> Iterator[bytes]:
        """Yield the rest of the file in pieces."""
        if self._file is None:
            self._file = open(self._place, "rb")  # noqa: SIM115 (closed by `close`)
        while piece := self._file.read(CHUNK_BYTES):
            yield piece

    def read_all(self) -> bytes:
        """Return the rest of the file."""
        return b"".join(self.read())

    def remove(self) -> bool:
        """Close and remove it."""
        self.close()
        return self._files.remove(self._path)

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> SyncFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncFileSystem:
    """`SyncFileSystem`, awaited."""

    def __init__(self, files: Mapping[str, Path]):
        self._files = SyncFileSystem(files)

    async def ls(self, path: str = "in") -> list[dict[str, Any]]:
        """Return what is at or below a path, as `SyncFileSystem.ls`."""
        return await asyncio.to_thread(self._files.ls, path)

    def open(self, path: str) -> AsyncFile:
        """Return a file; it is opened when it is read."""
        return AsyncFile(self._files.open(path))

    async def download(self, path: str = "in") -> AsyncIterator[str]:
        """Copy files to a temporary folder, and yield their paths there."""
        copies = self._files.download(path)
        while copied := await asyncio.to_thread(next, copies, None):
            yield copied

    async def upload(self, path: str) -> list[str] | None:
        """Make outputs of files, as `SyncFileSystem.upload`."""
        return await asyncio.to_thread(self._files.upload, path)

    async def remove(self, path: str) -> bool:
        """Remove a file of the inputs."""
        return await asyncio.to_thread(self._files.remove, path)

    async def close(self) -> None:
        """Do nothing: files are of this machine."""

    async def __aenter__(self) -> AsyncFileSystem:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncFile:
    """One file, to be read in async code."""

    def __init__(self, file: SyncFile):
        self._file = file

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the rest of the file in pieces."""
        pieces = self._file.read()
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece

    async def read_all(self) -> bytes:
        """Return the rest of the file."""
        return await asyncio.to_thread(self._file.read_all)

    async def remove(self) -> bool:
        """Close and remove it."""
        return await asyncio.to_thread(self._file.remove)

    async def close(self) -> None:
        """Close it."""
        self._file.close()

    async def __aenter__(self) -> AsyncFile:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _clean(path: str) -> str:
    clean = PurePosixPath(path.strip("/")).as_posix()
    if clean.partition("/")[0] not in ("in", "out"):
        raise ValueError(f"{path!r} is neither in in/, where inputs are, nor in out/, where outputs are")
    return clean
