"""What flows remember: `memory.short` (this run), `memory.long` (this flow on this node), `memory.shared(name)`.

Each is a set of values by key and a folder of files, and the node keeps both, wherever in the Ray cluster the flow
runs: what was set is there after a crash. `short` goes with its run, `long` stays for the flow's next runs, `shared`
is a knowledge base of the node, for every flow whose caller is granted it.

Methods are awaited in async flows and plain blocking calls in sync ones, as `output.write` is. Outside of a node
values live in this process and files in a temporary folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from kodo.flow._runtime.current import current
from kodo.flow._runtime.files import write_file
from kodo.flow._runtime.pending import Pending
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, UsageError
from kodo.p2p.net.files import whole_file
from kodo.protocol.manifest import check_output_name
from kodo.protocol.memory import MEMORY_PIECE_BYTES, Scope, check_key, check_shared, check_value

__all__ = ["Files", "Memory", "long", "shared", "short"]

MAX_TRIES = 200
"""How often something is begun anew because somebody else was faster."""

_HASTY_TRIES = 5
_MORE = {"set": ", …", "update": ", …", "write": ", …"}  # arguments of a call that a message leaves out


class Memory:
    """One memory: values by key, and `files`.

    Values are what events may carry too: None, numbers, text, lists and maps; anything else is turned into these.
    Keys are text of at most 512 bytes.
    """

    def __init__(self, scope: Scope, of: str = "", *, own: bool = False):
        """Refer to a memory; with `own`, to the part of it that whoever launched this run has for themselves."""
        self._place: dict[str, Any] = {"scope": scope, "of": of, **({"own": True} if own else {})}
        self.files = Files(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, `default` when there is none."""
        return self._do("get", key, partial(self._get, _key(key), default))

    def set(self, key: str, value: Any) -> Any:
        """Set the value of `key`, and give it as it is stored; when this returns it is.

        Raises:
            CapacityError: the value is above 1 MiB, the memory is full, or the disk.
        """
        return self._do("set", key, partial(self._set, _key(key), value))

    def delete(self, key: str) -> Any:
        """Remove `key`; give whether it was there."""
        return self._do("delete", key, partial(self.ask, "delete", {"key": _key(key)}))

    def keys(self, prefix: str = "") -> Any:
        """Return the keys that begin with `prefix`, sorted."""
        return self._do("keys", prefix, partial(self.pages, "keys", prefix))

    def update(self, key: str, change: Callable[[Any], Any], default: Any = None) -> Any:
        """Set `key` to what `change` makes of its value (`default` when there is none), and give that.

        Nobody's change is lost: when another run was faster, `change` is called again with the newer value. In async
        flows it is called in another thread.

        Raises:
            CapacityError: as `set`; or others change this key all the time.
        """
        return self._do("update", key, partial(self._update, _key(key), change, default))

    def ask(self, op: str, args: dict[str, Any]) -> Any:
        """Make the node do `memory.{op}` here; blocks."""
        return current().ask(f"memory.{op}", {**self._place, **args}).result()

    def pages(self, op: str, prefix: str) -> list[Any]:
        """Return all rows of a listing; blocks."""
        found: list[Any] = []
        after = ""
        while True:
            page = self.ask(op, {"prefix": prefix, "after": after})
            found += page["rows"]
            if not page["more"]:
                return found
            after = page["more"]

    def _do(self, what: str, of: str, work: Callable[[], Any]) -> Any:
        return _do(f"{self}.{what}({of!r}{_MORE.get(what, '')})", work)

    def __str__(self) -> str:
        return f"memory.shared({self._place['of']!r})" if self._place["of"] else f"memory.{self._place['scope']}"

    def _get(self, key: str, default: Any) -> Any:
        found = self.ask("get", {"key": key})
        return found["value"] if found["version"] else default

    def _set(self, key: str, value: Any, version: int | None = None) -> Any:
        value = plain(value)
        try:
            check_value(value)
        except OverflowError as error:
            raise CapacityError(f"{error}; store it as a file: memory.….files.write") from None
        self.ask("set", {"key": key, "value": value, "version": version})
        return value

    def _update(self, key: str, change: Callable[[Any], Any], default: Any) -> Any:
        for attempt in range(MAX_TRIES):
            found = self.ask("get", {"key": key})
            try:
                return self._set(key, change(found["value"] if found["version"] else default), found["version"])
            except CallError as error:
                if error.reason != "changed":
                    raise
            if attempt > _HASTY_TRIES:
                time.sleep(random.uniform(0, 0.05))
        raise CapacityError(f"{key!r} was changed by others {MAX_TRIES} times in a row; try again later")


class Files:
    """A memory's files. Names are as outputs': relative paths with `/` between their parts."""

    def __init__(self, memory: Memory):
        self._memory = memory

    def write(self, name: str, source: Any) -> Any:
        """Store a file, in the place of one of that name: bytes, text, a `Path`, an open file, or pieces of these.

        Gives `{name, size, sha256}`. Readers have the old file or the new one, whole.

        Raises:
            CapacityError: the memory is full, or the disk.
        """
        return self._do("write", name, partial(self._write, _file(name), source))

    def read(self, name: str) -> Any:
        """Return a file's bytes; `fetch` is for large ones.

        Raises:
            NotFoundError: the memory has no such file.
        """
        return self._do("read", name, partial(self._read, _file(name)))

    def fetch(self, name: str, to: str | os.PathLike[str] | None = None) -> Any:
        """Copy a file to this machine, to `to` or below the working folder's `memory/`; give its `Path`.

        Raises:
            NotFoundError: the memory has no such file.
        """
        path = Path("memory", name) if to is None else Path(to)
        return self._do("fetch", name, partial(self._fetch, _file(name), path))

    def delete(self, name: str) -> Any:
        """Remove a file; give whether it was there."""
        return self._do("delete", name, partial(self._memory.ask, "file.delete", {"name": _file(name)}))

    def list(self, prefix: str = "") -> Any:
        """Return the files whose names begin with `prefix`, by name: `{name, size, sha256, modified}` each."""
        return self._do("list", prefix, partial(self._memory.pages, "files", prefix))

    def _do(self, what: str, of: str, work: Callable[[], Any]) -> Any:
        return _do(f"{self._memory}.files.{what}({of!r}{_MORE.get(what, '')})", work)

    def _write(self, name: str, source: Any) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="kodo-memory-") as folder:
            path = Path(folder, "file")
            manifest = write_file(path, source)
            whole = {"size": manifest.size, "sha256": manifest.sha256.hex()}
            upload, offset = secrets.token_hex(8), 0
            with open(path, "rb") as file:
                while True:
                    args = {
                        "name": name,
                        "upload": upload,
                        "offset": offset,
                        "data": file.read(MEMORY_PIECE_BYTES),
                        **whole,
                    }
                    # The node says how far it has come: one that was started anew may begin again.
                    offset = self._memory.ask("file.write", args)["offset"]
                    if offset >= manifest.size:
                        return {"name": name, **whole}
                    file.seek(offset)

    def _read(self, name: str) -> bytes:
        found = io.BytesIO()
        self._copy(name, found)
        return found.getvalue()

    def _fetch(self, name: str, to: Path) -> Path:
        to.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(to, mode=0o666) as file:
            self._copy(name, file)
        return to

    def _copy(self, name: str, to: IO[bytes]) -> None:
        for _ in range(MAX_TRIES):
            to.seek(0)
            to.truncate()
            try:
                return self._copy_once(name, to)
            except CallError as error:
                if error.reason != "changed":
                    raise
        raise CapacityError(f"{name!r} was changed by others {MAX_TRIES} times while it was read; try again later")

    def _copy_once(self, name: str, to: IO[bytes]) -> None:
        hasher, offset, version = hashlib.sha256(), 0, None
        while True:
            args = {"name": name, "offset": offset, "version": version}
            found = self._memory.ask("file.read", args)
            version = found["version"]
            hasher.update(found["data"])
            to.write(found["data"])
            offset += len(found["data"])
            if offset >= found["size"] or not found["data"]:
                break
        if hasher.hexdigest() != found["sha256"]:
            raise IntegrityError(f"the memory's file {name!r} is not what was written to it")


short = Memory("short")
"""Of this run; erased when the run is over and the retention of short-term memory has passed."""

long = Memory("long")
"""Of this flow on this node: every run of it, whoever launched it, has the same."""


def shared(name: str) -> Memory:
    """Return a knowledge base of this node: letters, digits, dots, underscores and hyphens.

    Its methods raise `CallError` 403 when whoever launched the run is not granted it.
    """
    try:
        return Memory("shared", check_shared(name))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _key(key: str) -> str:
    try:
        return check_key(key)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _file(name: str) -> str:
    try:
        return check_key(check_output_name(name))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _do(what: str, work: Callable[[], Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    return Pending(what, lambda: asyncio.to_thread(work))
