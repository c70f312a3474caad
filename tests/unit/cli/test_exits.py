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


PLACES = [{"at": "/end", "message": "is before the start"}, {"at": "/guest/name", "message": "\x1b[2Jwho?"}]


def test_a_refusal_tells_each_field_to_people_and_programs() -> None:
    failure = failure_of(
        errors.CallError(400, "bad-inputs", "no; /end: is before", {"places": PLACES, "missing": []})
    )
    assert failure.lines() == ["no; /end: is before", "  end: is before the start", "  guest.name: [2Jwho?"]
    error = failure.to_json()["error"]
    assert error["places"] == [PLACES[0], {"at": "/guest/name", "message": "[2Jwho?"}]
    assert "missing" not in error


def test_a_flows_reasons_are_told_once() -> None:
    failure = failure_of(errors.CallError(409, "denied", "", {"reasons": ["too far", "too dear"]}))
    assert failure.lines() == ["too far; too dear"]
    assert failure.to_json()["error"]["reasons"] == ["too far", "too dear"]


@pytest.mark.parametrize("data", [{"places": 7}, {"places": [7, {}]}, {"reasons": "no"}, {"missing": None}, {}])
def test_what_a_peer_says_in_another_way_is_left_out(data: dict[str, object]) -> None:
    assert failure_of(errors.CallError(400, "x", "no", data)).lines() == ["no"]


def test_what_is_told_of_fields_has_bounds() -> None:
    places = [{"at": "/" + "a" * 1000, "message": "b" * 1000}] * 1000
    data = {"places": places, "reasons": ["c" * 1000] * 1000}
    told = failure_of(errors.CallError(400, "x", "no", data)).to_json()["error"]
    assert (len(told["places"]), len(told["places"][0]["message"]), len(told["reasons"])) == (100, 300, 100)
