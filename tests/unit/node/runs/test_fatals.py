"""Why the node ends a run: every error has a documented type, and its `fatal` can always be stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError
from kodo.node.files.ledger import NeverFitsError
from kodo.node.runs.fatals import FATAL_TYPES, fatal_of, node_fatal
from kodo.node.store.rows import NewEvent
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, IntegrityError, KodoError, UsageError

EVENTS = Path(__file__).resolve().parents[4] / "docs" / "reference" / "events.md"


def kinds(kind: type[KodoError] = KodoError) -> Iterator[type[KodoError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


def made(kind: type[KodoError], text: str) -> KodoError:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


@pytest.mark.parametrize("has_runner", [False, True])
@pytest.mark.parametrize("kind", sorted({*kinds()}, key=lambda kind: kind.__name__))
def test_every_error_of_kodo_has_a_documented_type(kind: type[KodoError], has_runner: bool) -> None:
    if kind is CallError or issubclass(kind, CallError):
        error: KodoError = CallError(400, "x", "y")
    else:
        error = made(kind, "y")
        if type(error).__str__ not in (Exception.__str__, BaseException.__str__):
            pytest.skip("its text needs its own fields")
    assert fatal_of(error, has_runner=has_runner)["type"] in FATAL_TYPES


@pytest.mark.parametrize(
    ("error", "has_runner", "kind"),
    [
        (RunnerDiedError("it is gone"), True, "RunnerDied"),
        (RunnerDiedError("the node died while it started this run"), False, "RunnerDied"),
        (DeadlineError("the runner does not answer poll within 40 s"), True, "RunnerDied"),
        (DeadlineError("nobody provided the missing inputs in time"), False, "NotStarted"),
        (MisconductError("two outputs have the same name"), True, "Misconduct"),
        (IntegrityError("an output does not have the size or hash that its event announced"), True, "OutputError"),
        (CapacityError("the disk is full"), True, "NodeFull"),
        (NeverFitsError("never"), True, "NodeFull"),
        (UsageError("no such resource"), False, "NotStarted"),
        (KodoError("the call to the runner failed: ValueError"), True, "InternalError"),
        (RuntimeError("private"), True, "InternalError"),
        (RuntimeError("private"), False, "InternalError"),
    ],
)
def test_an_error_has_its_type(error: Exception, has_runner: bool, kind: str) -> None:
    fatal = fatal_of(error, has_runner=has_runner)
    assert fatal["type"] == kind
    assert "private" not in fatal["message"]


@pytest.mark.parametrize("text", ["\U0001f600", "\udcff"])
def test_a_fatal_of_the_node_can_be_stored_whatever_a_process_left_behind(text: str) -> None:
    error = RunnerDiedError(text * 100_000)
    error.signal, error.stack = text * 100_000, text * 50_000
    assert NewEvent.make("fatal", fatal_of(error, has_runner=True, stderr=[text * 1000] * 40))
    assert NewEvent.make("fatal", node_fatal("Killed", text * 100_000))


def test_the_documentation_lists_every_type() -> None:
    listed = EVENTS.read_text(encoding="utf-8")
    assert [kind for kind in FATAL_TYPES if f"| `{kind}` |" not in listed] == []
