"""A runner's side of uploads: files that a run's inputs name arrive from the node, piece by piece, before the run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from kodo.p2p.errors import IntegrityError, UsageError
from kodo.p2p.net.files import plain_descriptor
from kodo.protocol.manifest import check_output_name
from kodo.protocol.uploads import is_upload_id, replace_uploads

__all__ = ["Inbox"]


class Inbox:
    """Takes files into a folder of this machine."""

    def __init__(self) -> None:
        self._done: dict[str, Path] = {}
        self._arriving: dict[str, tuple[Any, int]] = {}

    def take(self, folder: Path, uid: str, name: str, offset: int, data: bytes, sha256: str | None) -> None:
        """Append to the file `folder/<uid>/<name>`; the last piece comes with the hash of the whole.

        Raises:
            IntegrityError: the file is not what was announced, or a piece is missing.
        """
        if not is_upload_id(uid) or "/" in check_output_name(name):
            raise UsageError("that is not an upload")
        hasher, size = self._arriving.get(uid) or (hashlib.sha256(), 0)
        if size != offset:
            raise IntegrityError(f"a part of the uploaded file {name!r} is missing")
        path = folder / uid / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(plain_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
            file.write(data)
        hasher.update(data)
        self._arriving[uid] = (hasher, size + len(data))
        if sha256 is not None:
            if hasher.hexdigest() != sha256:
                raise IntegrityError(f"the uploaded file {name!r} did not arrive as it was sent")
            self._done[uid] = path

    def fill_in(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs with the path of each file in the place of its id."""
        if not self._done:
            return inputs
        filled: dict[str, Any] = replace_uploads(inputs, lambda uid: str(self._done.get(uid, uid)))
        return filled
