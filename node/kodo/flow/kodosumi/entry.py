"""What an app written for kodosumi offers, `Entry`, and what that gives when it is called, `Launch`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kodo.flow.kodosumi.forms import Model

__all__ = ["App", "Entry", "Launch"]


class App(Protocol):
    """What entries and their runs use of a `ServeAPI`."""

    @property
    def locks(self) -> Mapping[str, Callable[..., Any]]:
        """Makers of the forms of locks, by name."""
        ...

    @property
    def leases(self) -> Mapping[str, Callable[..., Any]]:
        """Judges of the answers to locks, by name."""
        ...

    def request(self) -> Any:
        """Return what stands in the place of an HTTP request."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """What an entry gives: what is to be run, with which inputs.

    Attributes:
        request: what the entry was given.
        entry_point: a function, a crew, or where one is, as `package.module:name`.
        inputs: for its parameter `inputs`, or for the crew.
        reference: not used on kodo.
        summary, description: what this run is about, when the entry's own texts do not say.
    """

    request: Any
    entry_point: Any
    inputs: Any = None
    reference: Any = None
    summary: str | None = None
    description: str | None = None


class Entry:
    """A function with `@app.enter`. It stays callable; as a flow, `kodo.flow.adapters.kodosumi` runs it."""

    def __init__(self, app: App, path: str, model: Model, function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self.app, self.path, self.model, self.function = app, path, model, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)
