"""Uploads inside inputs: an id in the place of a file. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kodo.protocol.ids import ID_PATTERN

__all__ = ["FILE_FORMATS", "UPLOAD_PATTERN", "find_uploads", "is_upload_id", "replace_uploads", "wants_files"]

_PREFIX = "upload-"
UPLOAD_PATTERN = "^" + _PREFIX + ID_PATTERN.removeprefix("^")
"""An upload's id can be told from every other text, so no schema is needed to find those inside inputs."""

_UPLOAD = re.compile(UPLOAD_PATTERN.replace("$", r"\Z"))

FILE_FORMATS = frozenset(["file", "path", "file-path"])
"""JSON Schema's `format` of what may be a file: `kodo.flow.File`, `pathlib.Path`, pydantic's `FilePath`."""

MAX_DEPTH = 64


def is_upload_id(text: object) -> bool:
    """Return whether `text` is a well-formed id of an upload."""
    return isinstance(text, str) and _UPLOAD.match(text) is not None


def find_uploads(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the ids of uploads inside JSON-like data, each as often as it stands there."""
    if is_upload_id(value):
        yield value
    elif depth < MAX_DEPTH and isinstance(value, Mapping):
        for part in value.values():
            yield from find_uploads(part, depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        for part in value:
            yield from find_uploads(part, depth + 1)


def replace_uploads(value: Any, by: Callable[[str], str], depth: int = 0) -> Any:
    """Return JSON-like data with every upload's id replaced."""
    if is_upload_id(value):
        return by(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {key: replace_uploads(part, by, depth + 1) for key, part in value.items()}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        return [replace_uploads(part, by, depth + 1) for part in value]
    return value


def wants_files(schema: Any, depth: int = 0) -> bool:
    """Return whether a JSON Schema has a place for a file."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(schema, Mapping):
        form = schema.get("format")
        if isinstance(form, str) and form in FILE_FORMATS:
            return True
        return any(wants_files(part, depth + 1) for part in schema.values())
    return isinstance(schema, (list, tuple)) and any(wants_files(part, depth + 1) for part in schema)
