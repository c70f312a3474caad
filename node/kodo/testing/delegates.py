"""What stands for flows of other nodes in a test: functions, which may make events and files and ask questions."""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kodo.flow._runtime.files import media_type_of
from kodo.flow._runtime.form import reasons_of
from kodo.flow._runtime.plain import plain
from kodo.flow.locks import acceptor
from kodo.p2p.errors import CallError, NotFoundError, UsageError
from kodo.protocol.events import EVENTS, LOCK_EXPIRES_S, LOCK_VERDICT_S
from kodo.protocol.ids import make_id

__all__ = ["Ask", "Delegates", "DelegatesGiven", "Makes", "Tells"]

DelegatesGiven = Mapping[str, Callable[..., Any]]

NODE = "test"


@dataclass(frozen=True, slots=True)
class Ask:
    """Yielded by a delegate: it opens a lock, and `yield` gives the answer.

    Attributes:
        title: what is asked.
        answer: the type of the answer, or a JSON Schema.
        check: gives the reasons against an answer, as of `lock`.
    """

    title: str
    answer: Any = bool
    check: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Tells:
    """Yielded by a delegate: it makes an event, as `Tells("progress", {"percent": 50})`."""

    event: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Makes:
    """Yielded by a delegate: it writes an output."""

    name: str
    content: bytes


class Delegates:
    """The other nodes of a test. Thread-safe.

    Args:
        given: by `NODE/FLOW`, as the flow under test writes it, a function of the inputs. What it returns is the
            result, what it raises ends the other run with `fatal`. A generator may yield `Ask`, `Tells` and `Makes`.
    """

    def __init__(self, given: DelegatesGiven):
        self._given = given
        self._runs: dict[str, _Other] = {}

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Answer what a flow asks of its node about other runs."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(self._answer(op, args))
            except Exception as error:  # told to the flow, as a node does
                future.set_exception(error)

        threading.Thread(target=work, name="kodo-delegates", daemon=True).start()
        return future

    def _answer(self, op: str, args: Mapping[str, Any]) -> dict[str, Any]:
        if op == "delegate.launch":
            target = args["flow"]
            if target not in self._given:
                raise UsageError(
                    f"the test has no other node's flow {target!r}; write run(…, delegates={{{target!r}: function}})"
                )
            other = _Other(self._given[target], args["inputs"])
            self._runs[other.fid] = other
            return {"run": {"fid": other.fid, "node": NODE}}
        other = self._runs[args["run"]["fid"]]
        match op:
            case "delegate.events":
                return {"events": other.events_after(args["after"])}
            case "delegate.answer":
                return {"unlock": other.answer(args["lid"], args["candidate"])}
            case "delegate.read":
                content = other.read(args["name"])
                return {"data": content[args["offset"] :], "size": len(content)}
        raise UsageError(f"{op} needs a node")


class _Other:
    """One run of a delegate."""

    def __init__(self, function: Callable[..., Any], inputs: Mapping[str, Any]):
        self.fid = _id()
        self._changed = threading.Condition()
        self._events: list[dict[str, Any]] = []
        self._locks: dict[str, tuple[Callable[[Any], tuple[Any, Any]], Future[Any]]] = {}
        self._files: dict[str, bytes] = {}
        threading.Thread(target=self._run, args=(function, inputs), name="kodo-delegate", daemon=True).start()

    def events_after(self, after: int) -> list[dict[str, Any]]:
        """Wait for events above `after` and return them."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > after)
            return self._events[after:]

    def answer(self, lid: str, candidate: Any) -> dict[str, Any]:
        """Answer a lock.

        Raises:
            CallError: it is denied, or not open.
        """
        with self._changed:
            if lid not in self._locks:
                raise CallError(410, "answered", "this lock has been answered")
            accept, future = self._locks[lid]
        try:
            value, shown = accept(candidate)
        except ValueError as error:
            reasons = reasons_of(error)
            raise CallError(409, "denied", "; ".join(reasons), {"reasons": reasons}) from None
        with self._changed:
            del self._locks[lid]
        unlock = {"lid": lid, "cid": _id(), "answer": plain(shown)}
        self._tell("unlock", unlock)
        future.set_result(value)
        return unlock

    def read(self, name: str) -> bytes:
        """Return an output.

        Raises:
            NotFoundError: there is none of that name.
        """
        if name not in self._files:
            raise NotFoundError(f"the other run has no output {name!r}")
        return self._files[name]

    def _run(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
        try:
            made = function(**inputs)
            result = self._generate(made) if inspect.isgenerator(made) else made
            self._tell("final", {"result": plain(result)})
        except BaseException as error:
            self._tell("fatal", {"type": type(error).__name__, "message": str(error)})

    def _generate(self, made: Any) -> Any:
        answer = None
        while True:
            try:
                said = made.send(answer)
            except StopIteration as end:
                return end.value
            answer = self._take(said)

    def _take(self, said: Any) -> Any:
        if isinstance(said, Tells):
            self._tell(said.event, plain(dict(said.data)))
        elif isinstance(said, Makes):
            self._files[said.name] = said.content
            digest, size = hashlib.sha256(said.content).hexdigest(), len(said.content)
            about = {"name": said.name, "size": size, "sha256": digest, "media_type": media_type_of(said.name)}
            self._tell("output", about)
        elif isinstance(said, Ask):
            schema, accept = acceptor(said.answer, said.check)
            lid, future = _id(), Future[Any]()
            with self._changed:
                self._locks[lid] = accept, future
            times = {"expires_s": LOCK_EXPIRES_S, "verdict_s": LOCK_VERDICT_S}
            self._tell("lock", {"lid": lid, "title": said.title, "schema": plain(schema), **times})
            return future.result()
        else:
            raise UsageError(f"a delegate yields Ask, Tells or Makes, not {type(said).__name__}")
        return None

    def _tell(self, event: str, data: dict[str, Any]) -> None:
        with self._changed:
            at = time.time_ns() // 1_000_000
            seq, kind = len(self._events) + 1, EVENTS[event].kind.value
            self._events.append({"seq": seq, "at": at, "kind": kind, "event": event, "data": data})
            self._changed.notify_all()


def _id() -> str:
    return make_id(time.time_ns() // 1_000_000, os.urandom(10))
