"""Turn any value into what an event may carry: None, bool, int, float, str, lists and string-keyed maps of these.

What libraries make is known by the names of its classes, so that nothing is imported which the flow did not import.
The forms are listed for authors in docs/reference/results.md; each row of its table is a test.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from kodo.flow._runtime.answers import answer_of
from kodo.flow._runtime.not_awaited import NotAwaitedError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "Converter", "StopError", "describe", "is_plain", "plain"]

MAX_DEPTH = 40
"""Nesting beyond this becomes text: what is around a value in an event must fit `MAX_EVENT_DEPTH` too."""

MAX_ITEMS = 1_000_000
"""Of an array, and of what an iterator gives: further ones are left out, and that is said."""

SHOWN_ROWS = 20
"""Of a table in an event."""

_SCALARS = frozenset([str, bool, type(None)])
_MAX_INT = 1 << 63
_TABLES = {("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("pyarrow", "RecordBatch")}


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


def plain(value: Any) -> Any:
    """Return `value` as JSON-like data; models are dumped, and what is unknown becomes its `str`.

    Raises:
        NotAwaitedError: it holds a call of kodo's that was not awaited; nothing else is ever raised.
    """
    return _TOLERANT.convert(value)


class Converter:
    """Converts values; what becomes of tables, pictures and unknown objects a subclass may decide."""

    def convert(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """Return `value`, which is at `path` in what is converted, as JSON-like data."""
        kind = type(value)
        if kind is str:
            return _text(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if -_MAX_INT <= value < _MAX_INT else str(value)
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if len(path) >= MAX_DEPTH:
            return f"… (a {kind.__name__} that lies more than {MAX_DEPTH} deep)"
        try:
            return self._convert(value, path)
        except (NotAwaitedError, StopError):
            raise
        except Exception as error:  # a model's own dump, a property, an iterator: all of them user code
            return self.failed(value, error, path)

    def failed(self, value: Any, error: Exception, path: tuple[str, ...]) -> Any:
        """Convert an object that failed to be converted, as its own code did."""
        return f"<{type(value).__name__}: {type(error).__name__}>"

    def unknown(self, value: Any, path: tuple[str, ...]) -> Any:
        """Convert an object without a form."""
        return describe(value)

    def table(self, table: Any, rows: int, columns: list[str], path: tuple[str, ...]) -> Any:
        """Convert a table of any library, which slices its rows."""
        shown = self.convert(records_of(table[:SHOWN_ROWS]), path)
        return {"rows": rows, "columns": columns, "first": shown}

    def picture(self, picture: Any, kind: str, path: tuple[str, ...]) -> Any:
        """Convert a figure or an image; `kind` is the library that made it."""
        return f"<{type(picture).__module__.partition('.')[0]} {type(picture).__name__}>"

    def array(self, array: Any, path: tuple[str, ...]) -> Any:
        """Convert an array with `shape` and `tolist`."""
        size = math.prod(array.shape)
        if size > MAX_ITEMS:
            return f"… (an array of {size} items, more than {MAX_ITEMS})"
        kind = getattr(array.dtype, "kind", "")
        if kind in ("M", "m"):  # of ns their own lists would be numbers
            return self.convert(array.astype(f"{'datetime64' if kind == 'M' else 'timedelta64'}[us]").tolist(), path)
        return self.convert(array.tolist(), path)

    def _convert(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Enum):
            return self.convert(value.value, (*path, "value"))
        if isinstance(value, Mapping):
            return self._map(list(value.items()), path)
        if isinstance(value, (list, tuple, AbstractSet, deque)):
            return [self.convert(item, (*path, str(index))) for index, item in enumerate(value)]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return base64.b64encode(bytes(value)).decode()
        if isinstance(value, (datetime, date, time)):
            return None if type(value).__name__ == "NaTType" else value.isoformat()
        if isinstance(value, timedelta):
            return duration(value)
        if isinstance(value, (PurePath, UUID, Decimal, complex)):
            return _text(str(value))
        if isinstance(value, (bool, int, float, str)):  # subclasses, as numpy's and IntEnum's
            base = next(base for base in (bool, int, float, str) if isinstance(value, base))
            return self.convert(base(value), (*path, ""))
        if not isinstance(value, type):
            found = self._of_a_library(value, path)
            if found is not _NOTHING:
                return found
        if isinstance(value, SimpleNamespace):
            return self._map(list(vars(value).items()), path)
        if isinstance(value, (Sequence, Iterator, MappingView)) and not hasattr(value, "read"):
            return self._items(value, path)
        return self.unknown(value, path)

    def _of_a_library(self, value: Any, path: tuple[str, ...]) -> Any:
        names = _names_of(type(value))
        if (answer := answer_of(value, names)) is not None:
            return self.convert(answer[0], (*path, ""))
        dump = getattr(value, "model_dump", None)
        if callable(dump):
            try:
                dumped = dump(mode="json")
            except (ValueError, TypeError):  # it holds what pydantic has no form for
                dumped = dump()
            return self.convert(dumped, (*path, ""))
        if dataclasses.is_dataclass(value):
            return self._fields(value, [field.name for field in dataclasses.fields(value)], path)
        if hasattr(type(value), "__attrs_attrs__"):
            return self._fields(value, [field.name for field in type(value).__attrs_attrs__], path)
        if names & {("pandas", "NAType")}:
            return None
        if names & {("numpy", "generic")}:
            return self._numpy_scalar(value, path)
        if names & {("polars", "LazyFrame")}:
            return self.convert(value.collect(), path)
        if names & _TABLES:
            columns = getattr(value, "column_names", None) or value.columns
            rows = value.num_rows if hasattr(value, "num_rows") else len(value)
            return self.table(value, rows, [describe(column) for column in columns], path)
        if names & {("pandas", "Series")}:
            if type(value.index).__name__ == "RangeIndex":
                return self._items(_present(value.tolist()), path)
            pairs = zip(value.index.tolist(), _present(value.tolist()), strict=True)
            return self._map(list(islice(pairs, MAX_ITEMS)), path)
        if names & {("polars", "Series"), ("pyarrow", "Array"), ("pyarrow", "ChunkedArray")}:
            listed = value.to_list() if hasattr(value, "to_list") else value.to_pylist()
            return self._items(listed, path)
        if names & {("pyarrow", "Scalar")}:
            return self.convert(value.as_py(), (*path, ""))
        if names & {("matplotlib", "Artist")}:
            figure = value if hasattr(value, "savefig") else value.figure
            return self.picture(figure, "matplotlib", path)
        if names & {("plotly", "BaseFigure")}:
            return self.picture(value, "plotly", path)
        if names & {("PIL", "Image")}:
            return self.picture(value, "PIL", path)
        if (
            hasattr(value, "tolist") and hasattr(value, "shape") and hasattr(value, "dtype")
        ):  # numpy, torch, jax, pandas
            return self.array(value, path)
        return _NOTHING

    def _numpy_scalar(self, value: Any, path: tuple[str, ...]) -> Any:
        if value.dtype.kind in ("M", "m"):
            return self.array(value.reshape(1), path)[0]
        made = value.item()
        return self.convert(
            float(value) if type(made) is type(value) else made, (*path, "")
        )  # a long double has no other

    def _fields(self, value: Any, names: list[str], path: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.convert(getattr(value, name), (*path, name)) for name in names}

    def _map(self, items: list[tuple[Any, Any]], path: tuple[str, ...]) -> Any:
        found = {}
        for key, value in items:
            name = _text(key if isinstance(key, str) else _key(key))
            found[name] = self.convert(value, (*path, name))
        if len(found) == len(items):
            return found
        # Keys that are one as text, as 1 and "1": as a map some would be lost.
        return [[self.convert(key, (*path, "")), self.convert(value, (*path, ""))] for key, value in items]

    def _items(self, items: Any, path: tuple[str, ...]) -> list[Any]:
        taken = iter(items)
        found = [self.convert(item, (*path, str(index))) for index, item in enumerate(islice(taken, MAX_ITEMS))]
        rest = next(taken, _NOTHING)
        return found if rest is _NOTHING else [*found, f"… (more than {MAX_ITEMS} items)"]


class StopError(Exception):
    """Base of what a converter raises on purpose."""


_NOTHING: Any = object()
_TOLERANT = Converter()


def describe(value: Any) -> str:
    """Return an object's text; of one whose text fails its class."""
    try:
        return _text(str(value))
    except NotAwaitedError:
        raise
    except Exception:  # user code
        return f"<{type(value).__name__}>"


def duration(value: timedelta) -> str:
    """Return a duration as ISO 8601 writes it, as `PT1H30M`, `-P1DT0.5S`; days are the largest unit."""
    if value < timedelta():
        return "-" + duration(-value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    days = f"{value.days}D" if value.days else ""
    parts = f"{f'{hours}H' if hours else ''}{f'{minutes}M' if minutes else ''}"
    parts += f"{seconds}{fraction}S" if seconds or fraction else ""
    return f"P{days}T{parts}" if parts else f"P{days}" if days else "PT0S"


def records_of(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a table of pandas, polars or Arrow as maps."""
    if hasattr(table, "to_dicts"):
        found: list[dict[str, Any]] = table.to_dicts()
        return found
    if hasattr(table, "to_pylist"):
        found = table.to_pylist()
        return found
    columns = [describe(column) for column in table.columns]
    rows = zip(*(_present(table.iloc[:, place].tolist()) for place in range(len(columns))), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _present(values: list[Any]) -> list[Any]:
    """Return a column of pandas, in which NaN says that there is no value."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _names_of(kind: type) -> set[tuple[str, str]]:
    """Return the package and name of a class and of all that it is derived from."""
    return {(str(base.__module__).partition(".")[0], base.__name__) for base in kind.__mro__}


def _key(key: Any) -> str:
    return str(key.value) if isinstance(key, Enum) and isinstance(key.value, str) else str(key)


def _text(text: str) -> str:
    """Lone surrogates (undecodable file names) have no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
