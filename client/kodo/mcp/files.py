"""Files on the user's machine: those in the folders that `--files` names, and no others.

A model says which file; a link in such a folder that leads out of it does not help it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kodo.client.schemas import branches, properties, resolve
from kodo.mcp.texts import one_line
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import is_upload_id

__all__ = ["Folders"]

_UPLOAD = "kodo://"


class Folders:
    """The folders that were named.

    Raises:
        UsageError: one of them is no folder.
    """

    def __init__(self, folders: Sequence[Path]):
        self._roots: list[Path] = []
        for folder in folders:
            root = Path(os.path.realpath(folder.expanduser()))
            if not root.is_dir():
                raise UsageError(f"--files {folder} is not a folder")
            self._roots.append(root)

    @property
    def hint(self) -> str:
        """What to say of a place for a file."""
        if not self._roots:
            return "A file. None can be given: the user named no folder (koco mcp --files DIR)."
        return f"The path of a file in {', '.join(map(str, self._roots))}, or a kodo:// upload."

    @property
    def named(self) -> bool:
        """Whether any folder was named."""
        return bool(self._roots)

    def source(self, text: str) -> Path:
        """Return the file that a path means.

        Raises:
            UsageError: it is not in one of the folders, or no file.
        """
        path = self._inside(text)
        try:
            mode = os.stat(path, follow_symlinks=False).st_mode
        except OSError as error:
            raise UsageError(f"{one_line(text)} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise UsageError(f"{one_line(text)} is not a regular file")
        return path

    def target(self, text: str | None) -> Path:
        """Return the folder to write to that a path means; the first that was named by default.

        It, or the last of its parents that is there, is inside of a folder that was named.

        Raises:
            UsageError: it is in none of the folders, or none was named.
        """
        path = self._inside(text) if text else self._first()
        if path.exists() and not path.is_dir():
            raise UsageError(f"{one_line(text)} is not a folder")
        return path

    def _first(self) -> Path:
        if not self._roots:
            raise UsageError("the user named no folder for files: start the bridge with koco mcp --files DIR")
        return self._roots[0]

    def _inside(self, text: str) -> Path:
        first = self._first()
        if "\0" in text or len(text) > 4096:
            raise UsageError("that is not a path")
        path = Path(os.path.realpath(first / Path(text).expanduser()))
        if any(path == root or root in path.parents for root in self._roots):
            return path
        raise UsageError(
            f"{one_line(text)} is not in a folder that the user named: {', '.join(map(str, self._roots))}"
        )

    def fill(self, inputs: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs with a `Path` in the place of every file, which a launch uploads.

        Raises:
            UsageError: a file is not in one of the folders, or no file.
        """
        fields = properties(resolve(schema, schema))

        def read(value: Any, field: Any, depth: int) -> Any:
            if depth > 8:
                return value
            for option in branches(resolve(field, schema), schema):
                if isinstance(value, str) and option.get("type") == "string" and option.get("format") == "file":
                    return self._file(value)
                if isinstance(value, (list, tuple)) and option.get("type") == "array":
                    return [read(each, option.get("items"), depth + 1) for each in value]
                if isinstance(value, Mapping) and (inner := properties(option)):
                    return {key: read(each, inner.get(key), depth + 1) for key, each in value.items()}
            return value

        return {name: read(value, fields.get(name), 0) for name, value in inputs.items()}

    def _file(self, text: str) -> Any:
        upload = text.removeprefix(_UPLOAD)
        return upload if is_upload_id(upload) else self.source(text)
