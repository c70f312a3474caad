"""A runner's side of uploads: files that a run's inputs name arrive from the node, piece by piece, before the run."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

from kodo.p2p.errors import IntegrityError, UsageError
from kodo.p2p.net.files import plain_descriptor
from kodo.protocol.manifest import check_output_name
from kodo.protocol.portable_names import fold
from kodo.protocol.uploads import is_upload_id, replace_uploads

__all__ = ["Inbox"]


class Inbox:
    """Takes files into a folder of this machine.

    Files of one folder lie to each other as they did where they come from, so that what they have in common
    (`os.path.commonpath`) is that folder: each below the first root in which nothing is in its way.
    """

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._roots: dict[int, dict[str, str]] = {}
        self._done: dict[str, Path] = {}
        self._arriving: dict[str, tuple[Any, int]] = {}

    def take(self, folder: Path, uid: str, name: str, offset: int, data: bytes, sha256: str | None) -> None:
        """Append to the file of an upload; the last piece comes with the hash of the whole.

        It is `folder/<uid>/<name>`, and `folder/<number>/<name>` if the name has folders.

        Raises:
            IntegrityError: the file is not what was announced, or a piece is missing.
        """
        if not is_upload_id(uid):
            raise UsageError("that is not an upload")
        check_output_name(name)
        hasher, size = self._arriving.get(uid) or (hashlib.sha256(), 0)
        if size != offset:
            raise IntegrityError(f"a part of the uploaded file {name!r} is missing")
        path = self._paths.get(uid)
        if path is None:
            path = self._paths[uid] = folder / (self._root_of(name) if "/" in name else uid) / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(plain_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
            file.write(data)
        hasher.update(data)
        self._arriving[uid] = (hasher, size + len(data))
        if sha256 is not None:
            if hasher.hexdigest() != sha256:
                raise IntegrityError(f"the uploaded file {name!r} did not arrive as it was sent")
            self._done[uid] = path

    def _root_of(self, name: str) -> str:
        """Return the root below which nothing is in the way of a name, on a disk that ignores case, too."""
        parts = name.split("/")
        folders = ["/".join(parts[:length]) for length in range(1, len(parts))]
        for number in itertools.count():
            there = self._roots.setdefault(number, {})
            if fold(name) not in there and all(there.get(fold(each), each) == each for each in folders):
                # A file is no folder of any name.
                there.update({fold(each): each for each in folders}, **{fold(name): ""})
                return str(number)
        raise AssertionError("unreachable")

    def fill_in(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs with the path of each file in the place of its id."""
        if not self._done:
            return inputs
        filled: dict[str, Any] = replace_uploads(inputs, lambda uid: str(self._done.get(uid, uid)))
        return filled
