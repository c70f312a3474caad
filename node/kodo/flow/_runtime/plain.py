"""Turn any value into what an event may carry: None, bool, int, float, str, lists and string-keyed maps of these."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from kodo.flow._runtime.pending import NotAwaitedError

__all__ = ["MAX_DEPTH", "is_plain", "plain"]

MAX_DEPTH = 40
"""Nesting beyond this becomes text: what is around a value in an event must fit `MAX_EVENT_DEPTH` too."""

_SCALARS = frozenset([str, bool, type(None)])
_MAX_INT = 1 << 63


def is_plain(data: Mapping[str, Any]) -> bool:
    """Return whether a map holds nothing but ordinary scalars: the usual event, which then needs no conversion."""
    for key, value in data.items():
        kind = type(value)
        if type(key) is not str or (
            kind not in _SCALARS
            and not (kind is int and -_MAX_INT <= value < _MAX_INT)
            and not (kind is float and math.isfinite(value))
        ):
            return False
    return True


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON-like data; models are dumped, and what is unknown becomes its `str`.

    Raises:
        NotAwaitedError: it holds a call of kodo's that was not awaited; nothing else is ever raised.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind in _SCALARS:
        return value
    if kind is int:
        return value if -_MAX_INT <= value < _MAX_INT else str(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if depth >= MAX_DEPTH:
        return _describe(value)
    try:
        return _convert(value, depth)
    except NotAwaitedError:
        raise
    except Exception as error:  # a model's own dump, a property, an iterator: all of them user code
        return f"<{kind.__name__}: {type(error).__name__}>"


def _convert(value: Any, depth: int) -> Any:
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (PurePath, UUID)):
        return _text(str(value))
    if isinstance(value, (bool, int, float, str)):  # subclasses, as numpy's and IntEnum's
        base = next(base for base in (bool, int, float, str) if isinstance(value, base))
        return plain(base(value), depth + 1)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return plain(dump(mode="json"), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)}
    return _describe(value)


def _describe(value: Any) -> str:
    try:
        return _text(str(value))
    except NotAwaitedError:
        raise
    except Exception:  # user code
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    """Lone surrogates (undecodable file names) have no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
