"""Which error is which exit code."""

from __future__ import annotations

import asyncio

import pytest

from kodo.cli.exits import failure_of
from kodo.p2p import errors


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.UsageError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.UnreachableError("x"), 5),
        (errors.BrokenSessionError("x"), 5),
        (errors.DeadlineError("x"), 6),
        (TimeoutError(), 6),
        (errors.IdentityError("x"), 7),
        (errors.IntegrityError("x"), 7),
        (errors.PeerError("x"), 7),
        (errors.CapacityError("x"), 8),
        (errors.KodoError("x"), 70),
        (RuntimeError("x"), 70),
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
    ],
)
def test_each_kind_of_error_has_its_code(error: BaseException, exit_code: int) -> None:
    assert failure_of(error).exit == exit_code


@pytest.mark.parametrize(
    ("status", "reason", "exit_code"),
    [
        (400, "bad-args", 2),
        (401, "no-token", 4),
        (403, "forbidden", 4),
        (404, "no-such-run", 3),
        (409, "denied", 2),
        (409, "busy", 8),
        (410, "answered", 3),
        (413, "too-large", 8),
        (429, "too-many", 8),
        (500, "internal", 70),
        (503, "stopping", 8),
        (504, "no-verdict", 6),
        (507, "disk-full", 8),
        (599, "unheard-of", 70),
    ],
)
def test_each_refusal_has_its_code(status: int, reason: str, exit_code: int) -> None:
    failure = failure_of(errors.CallError(status, reason, "said"))
    assert (failure.exit, failure.code, failure.reason, failure.message) == (exit_code, status, reason, "said")


def test_an_error_inside_groups_is_found() -> None:
    inner = errors.NotFoundError("the run")
    assert failure_of(ExceptionGroup("a", [ExceptionGroup("b", [inner])])).message == "the run"


def test_a_message_is_one_printable_line() -> None:
    failure = failure_of(errors.CallError(404, "no-such\nrun", "a\nb\x1b[31mc"))
    assert failure.message == "a b [31mc"
    assert failure.reason == "no-such run"


def test_the_json_shape_has_code_reason_and_message() -> None:
    error = failure_of(errors.NotFoundError("x")).to_json()["error"]
    assert (error["code"], error["reason"], error["message"]) == (404, "not-found", "x")
