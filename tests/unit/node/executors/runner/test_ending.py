"""The last word of a run: whatever a step on the way to it raises, there is one, and the node takes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest

from kodo.flow._runtime.buffer import pack_event
from kodo.node.executors.checks import Conduct
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.runner.ending import Ending
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol.events import MAX_EVENT_BYTES
from kodo.protocol.fatal import make_fatal


class RaisingTextError(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise self


class RaisingCauseError(Exception):
    """One that Ray's wrapper looks like."""

    @property
    def cause(self) -> BaseException:
        raise KeyboardInterrupt


RaisingCauseError.__name__ = "RayTaskError(RaisingCauseError)"


class _Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit(1)


def nameless() -> BaseException:
    """Make an error whose class does not say what it is called; pytest would ask it if it stood in the module."""
    return _Nameless("NamelessError", (Exception,), {})()  # type: ignore[no-any-return]


class Shy(str):
    """A text whose methods are user code."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise MemoryError

    def __getitem__(self, _: Any) -> str:
        raise MemoryError


class ShyError(Exception):
    """One whose text is no `str` proper."""

    def __str__(self) -> str:
        return Shy("x" * 100_000)


class RaisingCode:
    """What no exit code is."""

    def __repr__(self) -> str:
        raise SystemExit(2)


ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("x"),
    lambda: ValueError(os.fsdecode(b"\xff" * 35_000)),
    lambda: ValueError("\U0001f600" * 1_000_000),
    lambda: KeyError("runtime_s"),
    lambda: OSError(28, "No space left on device"),
    lambda: CapacityError("it does not fit"),
    lambda: UsageError("a name is used once"),
    lambda: RecursionError("too deep"),
    MemoryError,
    KeyboardInterrupt,
    GeneratorExit,
    lambda: SystemExit(3),
    lambda: SystemExit(RaisingCode()),
    lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("y" * 300_000)]),
    RaisingTextError,
    RaisingCauseError,
    nameless,
    ShyError,
    lambda: type("N" * 300_000, (Exception,), {})("named at length"),
]


class Raising:
    """A result that cannot be described: each way to look at it raises."""

    def __init__(self, error: BaseException):
        self._error = error

    def __str__(self) -> str:
        raise self._error

    def model_dump(self, mode: str) -> Any:
        raise self._error


@dataclass
class Told:
    """A runner whose steps do what a test wants."""

    flush: Callable[[], object] = lambda: None
    store: Callable[[str, str], str] = lambda text, spare: "final.json"
    refused: list[BaseException] = field(default_factory=list)
    last: list[bytes] = field(default_factory=list)
    aborted: int = 0

    def put_last(self, packed: bytes) -> None:
        if self.refused:
            raise self.refused.pop()
        self.last.append(packed)

    def abort(self) -> None:
        self.aborted += 1

    def end(self, work: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
        Ending(self.flush, self.store, self.put_last, self.abort).run(work)
        assert self.aborted == 0
        (packed,) = self.last
        event, data = msgpack.unpackb(packed)
        value = msgpack.unpackb(data)
        Conduct().check(RunnerEvent(1, event, value, data))
        return event, value


def raises(error: BaseException) -> Callable[..., Any]:
    def step(*_: Any) -> Any:
        raise error

    return step


@pytest.mark.parametrize("make", ERRORS)
def test_whatever_a_flow_raises_is_one_fatal_that_fits(make: Callable[[], BaseException]) -> None:
    event, data = Told().end(raises(make()))
    assert event == "fatal"
    assert data["message"] or data["traceback"]


@pytest.mark.parametrize("make", ERRORS)
def test_a_result_whose_description_raises_is_told(make: Callable[[], BaseException]) -> None:
    event, _ = Told().end(lambda: Raising(make()))
    assert event in ("final", "fatal")


@pytest.mark.parametrize("make", ERRORS)
@pytest.mark.parametrize("work", [lambda: 1, raises(ValueError("x"))])
def test_a_flush_that_raises_changes_nothing_of_the_end(
    make: Callable[[], BaseException], work: Callable[[], Any]
) -> None:
    assert Told(flush=raises(make())).end(work)[0] == Told().end(work)[0]


@pytest.mark.parametrize("make", ERRORS)
def test_a_large_result_that_cannot_be_stored_is_a_fatal_that_says_so(make: Callable[[], BaseException]) -> None:
    event, data = Told(store=raises(make())).end(lambda: "x" * MAX_EVENT_BYTES)
    assert event == "fatal"
    assert "told" in data["message"]


@pytest.mark.parametrize("make", ERRORS)
def test_a_last_event_that_is_refused_once_is_told_plainly(make: Callable[[], BaseException]) -> None:
    event, data = Told(refused=[make()]).end(lambda: 1)
    assert (event, data["type"]) == ("fatal", "InternalError")


@pytest.mark.parametrize("make", ERRORS)
def test_a_process_that_cannot_tell_its_end_is_ended(make: Callable[[], BaseException]) -> None:
    told = Told(refused=[make(), make()])
    Ending(told.flush, told.store, told.put_last, told.abort).run(lambda: 1)
    assert (told.aborted, told.last) == (1, [])


def test_a_large_result_becomes_an_output_that_the_final_names() -> None:
    stored: list[tuple[str, str]] = []

    def store(text: str, spare: str) -> str:
        stored.append((text, spare))
        return "final.json"

    event, data = Told(store=store).end(lambda: "x" * MAX_EVENT_BYTES)
    assert (event, data["result"], data["output"]) == ("final", None, "final.json")
    assert stored == [('"' + "x" * MAX_EVENT_BYTES + '"', str(data["runtime_s"]))]


def test_an_error_says_its_class_its_text_and_where() -> None:
    def work() -> None:
        raise LookupError("no bread")

    _, data = Told().end(work)
    assert (data["type"], data["message"]) == ("LookupError", "no bread")
    assert data["where"].startswith("test_ending.py:")
    assert "no bread" in data["traceback"]


def test_an_error_that_cannot_be_told_says_its_class() -> None:
    _, data = Told().end(raises(RaisingTextError()))
    assert data["type"] == "RaisingTextError"
    assert "could not be made" in data["message"]


@pytest.mark.parametrize("text", ["\U0001f600", "\udcff", "\x00", "a"])
def test_a_fatal_fits_an_event_whatever_its_texts(text: str) -> None:
    many = text * 400_000
    assert pack_event("fatal", make_fatal(many, many, where=many, traceback=many, signal=many))


def test_errors_of_kodo_say_why_a_result_could_not_be_stored() -> None:
    error: KodoError = CapacityError("'final.json' does not fit on this machine's disk")
    _, data = Told(store=raises(error)).end(lambda: "x" * MAX_EVENT_BYTES)
    assert data["type"] == "CapacityError"
    assert "does not fit on this machine's disk" in data["message"]
