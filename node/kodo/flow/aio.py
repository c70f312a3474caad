"""`lock`, `output` and `memory` as async code uses them, declared so that type checkers find a forgotten `await`.

They are those of `kodo.flow`, which serve plain functions too, so that their types cannot say whether to await:

    from kodo.flow.aio import lock, memory, output

pyright finds each forgotten `await` by itself; mypy does with `enable_error_code = ["truthy-bool"]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from kodo.flow import locks
from kodo.flow import memory as _memory
from kodo.flow import output as _output
from kodo.flow._runtime.pending import Pending

__all__ = ["lock", "memory", "output"]

T = TypeVar("T")
C = Coroutine[Any, Any, T]


class _LockOptions(TypedDict, total=False):
    default: Any
    expires: float | str | timedelta
    verdict: float | str | timedelta
    roles: str | Iterable[str]
    users: str | Iterable[str]
    check: Callable[[Any], Any] | None


class _Lock(Protocol):
    @overload
    def __call__(self, title: str, **options: Unpack[_LockOptions]) -> Pending[bool]: ...
    @overload
    def __call__(self, title: str, answer: type[T], **options: Unpack[_LockOptions]) -> Pending[T]: ...
    @overload
    def __call__(self, title: str, answer: Any, **options: Unpack[_LockOptions]) -> Pending[Any]: ...


class _Output(Protocol):
    def write(self, name: str, source: Any, media_type: str | None = None) -> C[dict[str, Any]]: ...


class _Files(Protocol):
    def write(self, name: str, source: Any) -> C[dict[str, Any]]: ...
    def read(self, name: str) -> C[bytes]: ...
    def fetch(self, name: str, to: str | os.PathLike[str] | None = None) -> C[Path]: ...
    def delete(self, name: str) -> C[bool]: ...
    def list(self, prefix: str = "") -> C[list[dict[str, Any]]]: ...


class _Memory(Protocol):
    files: _Files

    def get(self, key: str, default: Any = None) -> C[Any]: ...
    def set(self, key: str, value: Any) -> C[Any]: ...
    def delete(self, key: str) -> C[bool]: ...
    def keys(self, prefix: str = "") -> C[list[str]]: ...
    def update(self, key: str, change: Callable[[Any], Any], default: Any = None) -> C[Any]: ...


class _Memories(Protocol):
    short: _Memory
    long: _Memory

    def shared(self, name: str) -> _Memory: ...


lock = cast("_Lock", locks.lock)
"""`kodo.flow.lock`: its answer is of the type that was asked for."""

output = cast("_Output", _output)
"""`kodo.flow.output`."""

memory = cast("_Memories", _memory)
"""`kodo.flow.memory`."""
