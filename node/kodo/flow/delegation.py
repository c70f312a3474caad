"""`delegate("node-name/flow path", **inputs)`: run a flow on another node, and have its events.

The node dials, by its own key; the flow's process opens no connection. Iterate it: `async for` in async flows, `for`
in sync ones. Leaving the loop leaves the other run alone until this one is over; then it is ended.

A lock of the other run is answered by `answer`; one that is not, until the next event is asked for, is shown as a
lock of this run, and its answer is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from kodo.flow._runtime.current import current, emit_here
from kodo.flow._runtime.mirrored_locks import MirroredLock
from kodo.flow._runtime.not_awaited import NotAwaitedError
from kodo.flow._runtime.pending import Pending, note_forgotten
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.p2p.net.files import whole_file
from kodo.protocol.events import Event, OpenLock, RunView
from kodo.protocol.manifest import check_output_name

__all__ = ["DelegatedError", "Delegation", "delegate"]


class DelegatedError(KodoError):
    """A run on another node ended with `fatal`. Unhandled, it ends this run too.

    Attributes:
        type, message: of that `fatal`.
        node, fid: where it was, and the run.
    """

    def __init__(self, type: str, message: str, node: str, fid: str):
        super().__init__(f"{type}: {message} (run {fid} on {node})")
        self.type = type
        self.message = message
        self.node = node
        self.fid = fid


def delegate(flow: str, /, **inputs: Any) -> Delegation:
    """Run a flow on another node; the launch is made when the first event is asked for.

    Args:
        flow: `NODE/path` or `NODE/name`, NODE being a name, a peer id or an address.
        inputs: as data; secrets in the places where the other flow asks for them stay secret there.
    """
    return Delegation(flow, inputs)


class Delegation:
    """A run on another node; iterate it, or in async code await it for what the flow gives.

    Iterating gives its events (`seq, at, kind, event, data`), each once and in order, and raises `DelegatedError`
    after its `fatal`; `CallError` when it is refused (403 whoever launched this run may not, 409 `cycle` or
    `too-deep`) or the other node is lost (502 `node-lost`).

    Attributes:
        fid, node: of that run, once it is launched.
        view: what its events so far add up to; `view.final["result"]` is what the flow gave.
    """

    def __init__(self, flow: str, inputs: Mapping[str, Any]):
        self.fid: str | None = None
        self.node: str | None = None
        self.view = RunView()
        self._flow = flow
        self._inputs = {name: _opened(value) for name, value in inputs.items()}
        self._handle: dict[str, Any] | None = None
        self._context = current()
        self._asked = False
        self._answered: set[str] = set()
        self._mirrored: dict[str, MirroredLock] = {}

    @property
    def result(self) -> Any:
        """What the flow gave; None before its end.

        Raises:
            NotAwaitedError: it was neither iterated nor awaited, so it has not begun.
        """
        self._check_begun()
        return self.view.final.get("result") if self.view.final else None

    def __iter__(self) -> Generator[Event, None, None]:
        """Yield the events; blocks."""
        while not self.view.state.over:
            self._mirror()
            yield from self._take(current().ask(*self._question()).result())
        self._check()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Yield the events."""
        while not self.view.state.over:
            if self._unanswered():
                await asyncio.to_thread(self._mirror)
            for event in self._take(await asyncio.wrap_future(current().ask(*self._question()))):
                yield event
        self._check()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for its end; gives what the flow gave."""
        return self._ended().__await__()

    async def _ended(self) -> Any:
        async for _ in self:
            pass
        return self.result

    def __bool__(self) -> bool:
        self._check_begun()
        return True

    def __str__(self) -> str:
        self._check_begun()
        return repr(self)

    def _check_begun(self) -> None:
        if self._handle is None:
            raise NotAwaitedError(self._refusal())

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name if name.startswith("_") else f"a delegation has no {name!r}: {self._refusal()}")

    def _refusal(self) -> str:
        how = f"`async for event in delegate({self._flow!r}, …)`, `await delegate({self._flow!r}, …)`"
        return f"iterate it or await it, as in {how}; then its `result` is what the flow gave"

    def __del__(self) -> None:
        # An `__init__` that was refused has set none of these.
        if not vars(self).get("_asked", True):
            what = f"delegate({self._flow!r}) was neither iterated nor awaited, so nothing was launched"
            note_forgotten(f"{what}: {self._refusal()}", self._context)

    def answer(self, lock: Event | str, value: Any) -> Any:
        """Answer a lock of the other run: give its event, or its lid. Returns the data of its `unlock`.

        Awaited in async flows, a plain blocking call in sync ones.

        Raises:
            CallError: 400 it does not fit the lock's form; 409 `denied`, `reasons` in its data say why; 410 too late.
        """
        lid = str(lock.data.get("lid")) if isinstance(lock, Event) else lock
        self._answered.add(lid)
        candidate = _opened(value)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._forward(lid, candidate)
        return Pending("delegation.answer(…)", lambda: asyncio.to_thread(self._forward, lid, candidate))

    def _forward(self, lid: str, candidate: Any) -> dict[str, Any]:
        if self._handle is None:
            raise UsageError("the other run has not begun: ask for its events first")
        args = {"run": self._handle, "lid": lid, "candidate": candidate}
        return dict(current().ask("delegate.answer", args).result()["unlock"])

    def _unanswered(self) -> list[OpenLock]:
        """Return the open locks of the other run of which the flow has been told and that it left alone."""
        return [
            lock for lid, lock in self.view.locks.items() if lid not in self._answered and lid not in self._mirrored
        ]

    def _mirror(self) -> None:
        """Show these as locks of this run."""
        for lock in self._unanswered():
            shown = self._mirrored[lock.lid] = MirroredLock(current(), lock, self._forward)
            try:
                shown.open()
            except (UsageError, CapacityError) as error:
                text = f"the question {lock.title!r} of the run {self.fid} cannot be shown here: {error}"
                emit_here("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})

    def fetch(self, name: str, to: str | Path | None = None) -> Any:
        """Copy one of its outputs to this machine, verified: to `to`, or below `delegated/`; gives the `Path`.

        Awaited in async flows, a plain blocking call in sync ones.

        Raises:
            NotFoundError: it has no such output.
        """
        path = Path(to) if to is not None else Path("delegated", str(self.fid), check_output_name(name))
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._fetch(name, path)
        return Pending(f"delegation.fetch({name!r})", lambda: asyncio.to_thread(self._fetch, name, path))

    def _question(self) -> tuple[str, dict[str, Any]]:
        self._asked = True
        if self._handle is None:
            return "delegate.launch", {"flow": self._flow, "inputs": self._inputs}
        return "delegate.events", {"run": self._handle, "after": self.view.last_seq}

    def _take(self, answer: Mapping[str, Any]) -> list[Event]:
        if self._handle is None:
            self._handle = dict(answer["run"])
            self.fid, self.node = str(self._handle["fid"]), str(self._handle["node"])
            return []
        events = [Event.from_wire(each) for each in answer["events"]]
        for event in events:
            self.view.apply(event)
            if event.event in ("unlock", "lock-timeout"):
                self._close(str(event.data.get("lid")), event.data.get("answer"))
        if self.view.state.over:
            for lid in list(self._mirrored):
                self._close(lid)
        return events

    def _close(self, lid: str, answer: Any = None) -> None:
        if lid in self._mirrored:
            self._mirrored[lid].close(answer)

    def _check(self) -> None:
        fatal = self.view.fatal
        if fatal is not None:
            told = (str(fatal.get("type")), str(fatal.get("message")))
            raise DelegatedError(*told, str(self.node), str(self.fid))

    def _fetch(self, name: str, to: Path) -> Path:
        if self._handle is None:
            raise UsageError("the other run has not begun: ask for its events first")
        to.parent.mkdir(parents=True, exist_ok=True)
        offset = 0
        with whole_file(to, mode=0o666) as file:
            while True:
                args = {"run": self._handle, "name": name, "offset": offset}
                answer = current().ask("delegate.read", args).result()
                file.write(answer["data"])
                offset += len(answer["data"])
                if offset >= answer["size"]:
                    return to
                if not answer["data"]:
                    raise CapacityError(f"the node lost {name!r} while it was copied; fetch it again")


def _opened(value: Any) -> Any:
    """Return inputs as data, secrets as what they hold: the other node's form says that they are."""
    opened = getattr(value, "get_secret_value", None)
    if callable(opened):
        return plain(opened())
    if isinstance(value, Mapping):
        return {str(key): _opened(part) for key, part in value.items()}
    return [_opened(part) for part in value] if isinstance(value, (list, tuple)) else plain(value)
