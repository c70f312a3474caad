"""`ServeAPI`: an app written for kodosumi. Each `@app.enter` of it is a flow; nothing is served by HTTP."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kodo.flow.adapters.kodosumi import faults
from kodo.flow.decorator import FLOW_ATTRIBUTE, FlowDefinition
from kodo.flow.kodosumi.entry import Entry
from kodo.flow.kodosumi.forms import Model
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import wants_files

__all__ = ["ServeAPI", "Templates"]

MAX_ENTRIES = 1000


@dataclass(frozen=True)
class _Request:
    """What an entry, a lock or a lease gets as its `request`: there is no HTTP, and whoever asks is not told."""

    app: Any
    state: Any = field(default_factory=lambda: SimpleNamespace(user="_annon_", prefix=""))
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    query_params: dict[str, str] = field(default_factory=dict)


class ServeAPI:
    """An app: `@app.enter` offers flows, `@app.lock` and `@app.lease` are what its runs ask people by.

    Routes of an app's own (`@app.get` and so on) are left as they are and not served.

    Attributes:
        pages: how many of those would be flows on kodosumi, by `entry=True`: they make their forms as HTML.
    """

    def __init__(self, *args: Any, title: str = "", **kwargs: Any):
        self.title = title
        self.pages = 0
        self.flows = SimpleNamespace()
        self.locks: dict[str, Callable[..., Any]] = {}
        self.leases: dict[str, Callable[..., Any]] = {}

    def enter(self, path: str, model: Model, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Entry]:
        """Offer a function as a flow, whose inputs are a form's."""

        def mark(function: Callable[..., Any]) -> Entry:
            entry = Entry(self, path, model, function)
            setattr(entry, FLOW_ATTRIBUTE, self._definition(entry, kwargs))
            base = function.__name__
            names = (base, *(f"{base}_{number}" for number in range(2, MAX_ENTRIES)))
            setattr(self.flows, next(name for name in names if name not in vars(self.flows)), entry)
            return entry

        return mark

    def _definition(self, entry: Entry, said: Mapping[str, Any]) -> FlowDefinition:
        lines = (inspect.getdoc(entry.function) or "").strip().splitlines()
        return FlowDefinition(
            name=str(said.get("summary") or self.title or entry.function.__name__),
            author=str(said.get("author") or ""),
            organization=str(said.get("organization") or ""),
            release=str(said.get("version") or ""),
            description=" ".join(str(said.get("description") or (lines[0] if lines else "")).split()),
            tags=tuple(map(str, said.get("tags") or ())),
            # A check gets no files, so an entry that wants some is asked in the run alone.
            check=None if wants_files(entry.model.schema()) else lambda **inputs: faults(entry, inputs),
        )

    def lock(self, name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make the form of a lock by a function of its `data`."""
        return functools.partial(_kept, self.locks, name)

    def lease(self, name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Judge answers to a lock, and make what its run gets of them."""
        return functools.partial(_kept, self.leases, name)

    def request(self) -> Any:
        """Return what stands in the place of an HTTP request."""
        return _Request(self)

    def __kodo_flows__(self) -> Iterator[tuple[str, Entry]]:
        """Yield each entry and where it is in this app: `flows` has it by its function's name."""
        for name, entry in vars(self.flows).items():
            yield f"flows.{name}", entry

    def route(self, *args: Any, entry: bool = False, **kwargs: Any) -> Callable[[Any], Any]:
        """Leave a route of the app's own as it is."""
        self.pages += bool(entry)
        return lambda function: function

    get = post = put = delete = patch = options = head = route
    websocket = middleware = exception_handler = on_event = route

    def mount(self, *args: Any, **kwargs: Any) -> None:
        """Leave out what the app serves beside its flows."""

    include_router = add_middleware = add_api_route = add_exception_handler = mount

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse to be served by HTTP.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "on kodo an app of kodosumi is not served by HTTP: offer it in a scope file, `flows: [app:app]`"
        )


class Templates:
    """Pages of an app's own, which kodo does not serve."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def TemplateResponse(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError("kodo serves no pages of kodosumi's templates: make the form by @app.enter(…, model=…)")


def _kept(kept: dict[str, Callable[..., Any]], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    kept[name] = function
    return function
