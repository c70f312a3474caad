"""The result of a run: data as it is, tables and pictures as outputs, and never the mere text of an object.

result_of(value) ─► data │ {"output": "final.parquet", "rows": …, "columns": […]} │ {"output": "figure.png"}
"""

from __future__ import annotations

import importlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

from kodo.flow._runtime.current import current
from kodo.flow._runtime.plain import MAX_ITEMS, Converter, StopError, describe
from kodo.p2p.errors import UsageError

__all__ = ["ResultError", "result_of"]

_RUNNING = ("kickoff", "invoke", "run", "arun", "execute", "start", "send", "compute", "collect", "result")
_PNG_MODES = ("1", "I", "L", "LA", "P", "RGB", "RGBA")
_MAX_NAME = 60


class ResultError(StopError, UsageError):
    """A flow gave something that has no form as data: it may not even have run."""


def result_of(value: Any) -> Any:
    """Return what a flow gave as JSON-like data; tables and pictures are written as outputs, which it names.

    Raises:
        ResultError: it is an object without a form, as a function or a connection.
        NotAwaitedError: it holds a call of kodo's that was not awaited.
    """
    return _Result().convert(value)


class _Result(Converter):
    def unknown(self, value: Any, path: tuple[str, ...]) -> Any:
        kind = type(value)
        if _has_text(kind):
            return describe(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if path:
            return _left_out(name, "it has no form as data", path)
        called = next((each for each in _RUNNING if callable(getattr(kind, each, None))), None)
        advice = f"call its `{called}` in the flow, and return what that gives" if called else "return its data"
        raise ResultError(f"the flow returned a {name}, which has no form as data: {advice} (text, a map, a model)")

    def failed(self, value: Any, error: Exception, path: tuple[str, ...]) -> Any:
        name, reason = f"{type(value).__module__}.{type(value).__qualname__}", f"{type(error).__name__}: {error}"
        if path:
            return _left_out(name, reason, path)
        raise ResultError(f"the flow's result, a {name}, could not be stored: {reason}") from error

    def table(self, table: Any, rows: int, columns: list[str], path: tuple[str, ...]) -> Any:
        name = _table_as_output(table, path)
        return {**super().table(table, rows, columns, path), "output": name}

    def picture(self, picture: Any, kind: str, path: tuple[str, ...]) -> Any:
        with tempfile.TemporaryDirectory(prefix="kodo-result-") as folder:
            if kind == "plotly":
                made = Path(folder, "figure.html")
                picture.write_html(made, include_plotlyjs=True)  # a page that loads nothing from elsewhere
            elif kind == "PIL":
                made = Path(folder, "image.png")
                (picture if picture.mode in _PNG_MODES else picture.convert("RGB")).save(made)
            else:
                made = Path(folder, "figure.png")
                picture.savefig(made)
            return {"output": _write(made.stem, path, made.suffix, made)}

    def array(self, array: Any, path: tuple[str, ...]) -> Any:
        size = 1
        for length in array.shape:
            size *= length
        if size <= MAX_ITEMS or not type(array).__module__.startswith("numpy"):
            return super().array(array, path)
        data = io.BytesIO()
        importlib.import_module("numpy").save(data, array, allow_pickle=False)
        return {"output": _write("final", path, ".npy", data.getvalue()), "shape": list(array.shape)}


def _has_text(kind: type) -> bool:
    """Return whether objects of a class have a text of their own: one by `repr` alone is for programmers."""
    own = next(vars(base)["__str__"] for base in kind.__mro__ if "__str__" in vars(base))
    return own is not vars(object)["__str__"] and not issubclass(kind, type)


def _left_out(name: str, reason: str, path: tuple[str, ...]) -> str:
    """Report what is missing of a result: what is around it is worth more than a failure."""
    text = f"the result's {'.'.join(path)}, a {name}, was left out: {reason}"
    current().emit("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})
    return f"<{name}, left out>"


def _table_as_output(table: Any, path: tuple[str, ...]) -> str:
    """Write a table as Parquet, or as CSV where nothing can write that."""
    with tempfile.TemporaryDirectory(prefix="kodo-result-") as folder:
        parquet, csv = Path(folder, "table.parquet"), Path(folder, "table.csv")
        if hasattr(table, "write_parquet"):  # polars
            table.write_parquet(parquet)
        elif hasattr(table, "num_rows"):  # Arrow
            tables = importlib.import_module("pyarrow.parquet")
            whole = table if hasattr(table, "column_names") and hasattr(table, "combine_chunks") else None
            tables.write_table(whole or importlib.import_module("pyarrow").Table.from_batches([table]), parquet)
        else:
            try:
                table.to_parquet(parquet)
            except (ImportError, ValueError, TypeError, OSError):  # no engine, or what Parquet cannot hold
                parquet.unlink(missing_ok=True)
                table.to_csv(csv)
        made = parquet if parquet.exists() else csv
        return _write("final", path, made.suffix, made)


def _write(stem: str, path: tuple[str, ...], suffix: str, source: Any) -> str:
    """Write an output under a name that is free: `final.parquet`, `final-sales.parquet`, `final-2.parquet`."""
    parts = [re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in path]
    base = "-".join(part for part in [stem, *parts] if part)[:_MAX_NAME]
    for number in range(1, 1000):
        name = f"{base}{f'-{number}' if number > 1 else ''}{suffix}"
        try:
            written: dict[str, Any] = current().write_output(name, source, None)
        except UsageError:
            if number == 999:
                raise
            continue
        return str(written["name"])
    raise AssertionError
