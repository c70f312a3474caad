"""What a runner says is data: the node's process makes no object of it that could do something.

Ray packs plain values with msgpack, and bytes not at all; everything else, errors too, comes as a pickle, and whoever
reads a pickle runs what its writer wants. A flow's process may write any, and so may another machine of a cluster
that was joined. So the node's Ray reads pickles of errors only: those of Ray, of kodo, and of Python itself.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
from collections.abc import Iterable
from typing import Any

__all__ = ["ForbiddenError", "guard", "loads"]

_ERRORS = frozenset(["builtins", "kodo.p2p.errors", "kodo.node.executors.checks", "ray.exceptions"])
"""Modules whose errors may come."""

_READERS = ("ray._private.serialization", "ray.exceptions", "ray._private.function_manager")
"""The modules of Ray that read pickles from elsewhere in a process that runs no tasks; see `tests/contract`."""

_RUNNER = ("kodo.node.executors.ray.actor", "RunnerActor")


class ForbiddenError(pickle.UnpicklingError, ValueError):
    """A pickle holds something else than errors, or an actor is none of a node's runners."""

    def __str__(self) -> str:
        return "it holds something that a runner does not say"  # and nothing of what it holds


class _ErrorsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Nothing is imported, and no attribute of an attribute is looked up, because a pickle says so.
        if module not in _ERRORS or "." in name:
            raise ForbiddenError
        found = getattr(builtins if module == "builtins" else importlib.import_module(module), name, None)
        if not isinstance(found, type) or not issubclass(found, Exception) or found.__module__ != module:
            raise ForbiddenError
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise ForbiddenError


def loads(data: Any, *, buffers: Iterable[Any] | None = None) -> Any:
    """Read a pickle of plain values and errors.

    Raises:
        ForbiddenError: it holds something else.
        Exception: it is none; whatever `pickle` raises then.
    """
    return _ErrorsOnly(io.BytesIO(data), buffers=buffers).load()


class _Guarded:
    """Ray's `pickle`, but for what reads."""

    def __init__(self, original: Any):
        self._original = original
        self.loads = loads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def load(self, file: Any) -> Any:
        """Read a pickle from a file."""
        return loads(file.read())


def guard() -> None:
    """Make this process's Ray read errors only, and know no actor but a runner; to be called before it connects."""
    from ray._private.function_manager import FunctionActorManager

    for name in _READERS:
        module = importlib.import_module(name)
        if not isinstance(module.pickle, _Guarded):
            module.pickle = _Guarded(module.pickle)  # type: ignore[attr-defined]
    FunctionActorManager._load_actor_class_from_gcs = _class_of_runners  # type: ignore[method-assign]


def _class_of_runners(manager: Any, job_id: Any, descriptor: Any) -> type:
    """Return the class of an actor that another process of this node has made; Ray would read its pickled code."""
    actor: Any = importlib.import_module("ray.actor")
    if (descriptor.module_name, descriptor.class_name) != _RUNNER:
        raise ForbiddenError
    found: type = actor._modify_class(getattr(importlib.import_module(_RUNNER[0]), _RUNNER[1]))
    return found
