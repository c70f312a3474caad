"""Of pickles from elsewhere errors are read, and nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.ray.guard import ForbiddenError, loads
from kodo.p2p.errors import CallError, CapacityError, KodoError, NotFoundError, UsageError


class Doing:
    """Does something when it is read."""

    def __init__(self, *what: Any):
        self.what = what

    def __reduce__(self) -> Any:
        return self.what[0], tuple(self.what[1:])


class OtherError(Exception):
    """An error of somebody else."""


PLAIN = [None, True, 1, -(2**70), 1.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}}, (1, 2), {1, 2}]

ERRORS = [
    KodoError("a"),
    UsageError("a"),
    NotFoundError("a"),
    CapacityError("a"),
    CallError(400, "bad", "message", {"at": 1}),
    MisconductError("a"),
    ValueError("a", 1),
    KeyError("k"),
    FileNotFoundError(2, "no such file", "x"),
    TimeoutError(),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read(value: Any, protocol: int) -> None:
    if protocol > 3 or not isinstance(value, set | bytes):  # which were calls once
        assert loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_of_kodo_and_of_python_are_read(error: Exception) -> None:
    read = loads(pickle.dumps(error))
    assert (type(read), str(read), read.__dict__) == (type(error), str(error), error.__dict__)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_done(tmp_path: Path, protocol: int) -> None:
    place = tmp_path / "made"
    doings: list[Any] = [
        Doing(os.mkdir, str(place)),
        Doing(os.system, f"touch {place}"),
        Doing(subprocess.call, ["touch", str(place)]),
        Doing(eval, f"__import__('os').mkdir({str(place)!r})"),
        Doing(open, str(place), "w"),
        Doing(getattr, "text", "upper"),
        Doing(OrderedDict, [(1, 2)]),
        Path(place),
        Doing,
        OtherError("x"),
        SystemExit(1),
    ]
    for doing in doings:
        with pytest.raises(ForbiddenError, match="does not say"):
            loads(pickle.dumps([doing], protocol))
    assert not place.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x8c\x10kodo.p2p.errors\x94\x8c\x0bannotations",
        b"\x8c\x0fkodo.p2p.errors\x8c\x15KodoError.__init__.im\x93.",
        b"\x8c\x1akodo.node.executors.checks\x8c\x04math\x93.",
        b"ckodo.p2p.errors\nUsageError.__subclasses__\n.",
        b"cbuiltins\nBaseException\n.",
        b"cbuiltins\nobject\n.",
        b"cos\nsystem\n.",
        b"Pid\n.",
    ],
)
def test_no_way_leads_from_an_error_to_something_else(opcodes: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError, EOFError)):
        loads(b"\x80\x04" + opcodes)


def test_the_refusal_says_nothing_of_what_was_sent() -> None:
    with pytest.raises(ForbiddenError) as caught:
        loads(pickle.dumps(OtherError("a secret")))
    assert "secret" not in str(caught.value)
    assert "OtherError" not in repr(caught.value)
