"""What node and client say to each other: the cases that a reader should be able to look up."""

from __future__ import annotations

from typing import Any

import pytest

from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import Grant, Principal, parse_grant
from kodo.protocol.args.files import ManifestArgs
from kodo.protocol.args.runs import StreamArgs
from kodo.protocol.calls import parse_args
from kodo.protocol.events import LOCK_EXPIRES_S, MAX_LISTED, Event, RunState, RunView, visible
from kodo.protocol.ids import id_time_ms, make_id
from kodo.protocol.manifest import MAX_NAME_BYTES, ManifestBuilder, check_output_name

FID = "0" * 26


def event(seq: int, name: str, **data: Any) -> Event:
    return Event(seq, 1000 * seq, "process", name, data)


# --- ids ---


def test_the_least_and_the_greatest_id() -> None:
    assert make_id(0, bytes(10)) == "0" * 26
    assert make_id(2**48 - 1, b"\xff" * 10) == "7" + "z" * 25


@pytest.mark.parametrize(("now", "random"), [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9)), (0, bytes(11))])
def test_an_id_of_other_sizes_is_refused(now: int, random: bytes) -> None:
    with pytest.raises(ValueError, match=r"id|48 bits"):
        make_id(now, random)


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 25 + "u", "0" * 25 + "A", "0" * 26 + "\n"]
)
def test_what_is_no_id_tells_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        id_time_ms(text)


# --- names of outputs ---


@pytest.mark.parametrize(
    "name",
    [
        *("report.md", "charts/size.svg", "a/b/c", "übersicht.txt", ".hidden", "a b.txt", "x" * 255, "C:\\x", "a\\b"),
        *(
            "10:30.txt",
            "a*",
            "why?.md",
            "a\nb",
            "می\u200cخواهم.txt",
            "👩\u200d💻.png",
            "con",
            "NUL.txt",
            "a/com1.log",
        ),
        *("ends.", "ends ", " begins", "…/..."),
    ],
)
def test_relative_names_that_linux_takes_are_taken(name: str) -> None:
    assert check_output_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "..", ".", "a\0b", "\ud800",
        "x" * 256, "a/" * 256 + "b", "é" * 128, "x/" * (MAX_NAME_BYTES // 2) + "y",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_that_linux_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"output|name"):
        check_output_name(name)


def test_an_empty_file_has_no_chunks() -> None:
    manifest = ManifestBuilder().finish()
    assert (manifest.size, manifest.chunks) == (0, ())
    assert manifest.sha256.hex().startswith("e3b0c442")


# --- args ---


def test_args_have_their_defaults() -> None:
    args = parse_args("run.stream", {"fid": FID})
    assert isinstance(args, StreamArgs)
    assert (args.after, args.follow) == (0, True)


def test_an_arg_may_bear_a_name_that_python_reserves() -> None:
    args = parse_args("output.manifest", {"fid": FID, "name": "a", "from": 3})
    assert isinstance(args, ManifestArgs)
    assert (args.from_, args.count) == (3, 1024)


@pytest.mark.parametrize(
    ("op", "args", "named"),
    [
        ("run.state", {}, "fid"),
        ("run.state", {"fid": "x"}, "fid"),
        ("run.state", {"fid": FID, "colour": 1}, "colour"),
        ("run.stream", {"fid": FID, "after": -1}, "after"),
        ("run.stream", {"fid": FID, "after": "3"}, "after"),
        ("run.stream", {"fid": FID, "follow": 1}, "follow"),
        ("run.list", {"state": "asleep"}, "state"),
        ("run.list", {"match": {"colour": "red"}}, "match.colour"),
        ("run.list", {"pp": 501}, "pp"),
        ("run.launch", {"path": "a", "inputs": []}, "inputs"),
        ("run.launch", {"path": "a", "tags": ["x" * 129]}, "tags.0"),
        ("output.read", {"fid": FID, "name": "a", "length": -1}, "length"),
        ("node.state", {"verbose": True}, "verbose"),
    ],
)
def test_a_bad_arg_is_named(op: str, args: dict[str, Any], named: str) -> None:
    with pytest.raises(CallError) as caught:
        parse_args(op, args)
    assert (caught.value.code, caught.value.reason, caught.value.data) == (400, "bad-args", {"arg": named})


# --- events ---


def test_a_lock_is_open_until_it_is_unlocked_or_times_out() -> None:
    view = RunView()
    view.apply(
        event(1, "lock", lid="a", title="Go?", schema={"type": "boolean"}, expires_s=60, verdict_s=5, default=None)
    )
    lock = view.locks["a"]
    assert (view.state, lock.expires_at, lock.verdict_s, lock.has_default) == (RunState.LOCKED, 61_000, 5.0, True)
    view.apply(event(2, "candidate", lid="a", cid="c1"))
    assert (lock.candidate, lock.candidate_at) == ("c1", 2000)
    view.apply(event(3, "unlock-deny", lid="a", cid="c0"))
    assert lock.candidate == "c1"
    view.apply(event(4, "unlock-deny", lid="a", cid="c1"))
    assert lock.candidate is None
    view.apply(event(5, "unlock", lid="a"))
    assert view.state is RunState.PENDING


def test_a_lock_that_does_not_say_stays_open_for_18_hours() -> None:
    view = RunView()
    view.apply(event(1, "lock", lid="a"))
    assert view.locks["a"].expires_at == 1000 + int(LOCK_EXPIRES_S * 1000)
    assert not view.locks["a"].has_default


def test_fatal_outweighs_final() -> None:
    view = RunView()
    view.extend([event(1, "final"), event(2, "fatal", type="X", message="y")])
    assert view.state is RunState.ERROR


def test_a_view_keeps_the_latest_agents_only() -> None:
    view = RunView()
    view.extend(event(seq, "agent", number=seq) for seq in range(1, MAX_LISTED + 3))
    assert (len(view.agents), view.agents[0]["number"]) == (MAX_LISTED, 3)


def test_a_traceback_is_for_level_two() -> None:
    fatal = event(1, "fatal", type="X", message="y", traceback="z")
    low, high = visible(fatal, 1), visible(fatal, 2)
    assert low is not None
    assert "traceback" not in low.data
    assert high == fatal
    assert "traceback" in fatal.data


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"seq": 0, "at": 1, "kind": "data", "event": "x", "data": {}},
        {"seq": "1", "at": 1, "kind": "data", "event": "x", "data": {}},
        {"seq": 1, "at": 1, "kind": "data", "event": "x", "data": []},
        {"seq": 1, "at": None, "kind": "data", "event": "x", "data": {}},
    ],
)
def test_what_is_no_event_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an event"):
        Event.from_wire(wire)


# --- grants ---


@pytest.mark.parametrize("text", ["node://a.example", "registry://r/w", "flow://flows.*/1/x", "flow://a/b/c/2/r"])
def test_grants_are_read_and_written_alike(text: str) -> None:
    assert str(parse_grant(text)) == text


@pytest.mark.parametrize(
    "text", ["", "flow://", "flow://a/3/x", "flow://a/1/w", "registry://r/x", "node://a/b", "http://a/1/x"]
)
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a grant"):
        parse_grant(text)


def test_the_highest_fitting_grant_counts() -> None:
    grants = (Grant("flow", "flows.*", 0, "x"), Grant("flow", "flows.a", 2, "r"), Grant("flow", "other", 2, "x"))
    principal = Principal("p", "p", grants=grants)
    assert principal.flow_grant("flows.a", "r") == grants[1]
    assert principal.flow_grant("flows.a", "x") == grants[0]
    assert principal.flow_grant("nothing", "r") is None
