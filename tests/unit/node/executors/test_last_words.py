"""A process that dies has said all that it said: whoever writes, and however it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.flow._runtime.capture import read_rest
from kodo.flow._runtime.spool import SPOOL_FILE, Spool, read_spool
from kodo.node import executors
from kodo.node.executors.crash import CRASH_FILE, add_crash
from kodo.node.executors.executor import RunnerDiedError, RunnerEvent
from kodo.node.executors.last_words import LastWords, Pipes, _overlap
from kodo.protocol.events import MAX_EVENT_BYTES

FLOW = """
import logging, os, signal, sys
from pathlib import Path
from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.flow._runtime.capture import StreamCapture
from kodo.flow._runtime.log_events import EventLogHandler
parent = os.dup(1)
buffer = EventBuffer()
emit = lambda event, data: buffer.put(pack_event(event, data))
capture = StreamCapture(lambda event, text: emit(event, {"text": text}))
def seen(event, rest):
    while capture._rests[event] != rest:
        os.sched_yield()
waiting = os.dup(0)
capture.start()
buffer.keep_in(Path(sys.argv[1]))
capture.keep_rests(Path(sys.argv[1]).parent)
logging.getLogger().addHandler(EventLogHandler(emit))
os.write(parent, b"ready")
os.read(waiting, 1)
"""

ENDS = {
    "abort": "os.abort()",
    "exit": "os._exit(3)",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "fault": "import ctypes; ctypes.string_at(0)",
}
WRITERS = {
    "stderr": "os.write(2, b'last\\n')",
    "stdout": "print('last')",
    "a child": "import subprocess; subprocess.run(['sh', '-c', 'echo last >&2'])",
    "logs": "[logging.warning('%d', n) for n in range(5000)]; logging.warning('last')",
    "events": "[emit('result', {'text': str(n)}) for n in range(5000)]; emit('result', {'text': 'last'})",
    "no line end": "os.write(2, b'last'); seen('stderr', b'last')",
    "half a line, then its end": "os.write(1, b'la'); seen('stdout', b'la'); os.write(1, b'st\\n')",
    "half a line, twice": "os.write(1, b'\\nla'); seen('stdout', b'la'); os.write(1, b'st'); seen('stdout', b'last')",
    "many lines": "os.write(1, b'x\\n' * 20_000 + b'last\\n')",
}


def heard(folder: Path, body: str) -> list[RunnerEvent]:
    command = [sys.executable, "-c", FLOW + body, str(folder / "spool")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(5) == b"ready"
        pipes = Pipes(process.pid)
        process.stdin.write(b"x")
        process.stdin.close()
        process.wait(120)
    try:
        return list(LastWords(folder / "spool", pipes))
    finally:
        pipes.close()


@pytest.mark.skipif(sys.platform != "linux", reason="pipes of another process are reached by /proc")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_the_last_thing_that_a_process_says_is_heard_once(tmp_path: Path, writer: str, end: str) -> None:
    texts = [event.data["text"] for event in heard(tmp_path, f"{WRITERS[writer]}\n{ENDS[end]}")]
    assert texts.count("last") == 1
    if writer in ("logs", "events"):
        assert [text for text in texts if text.isdecimal()] == [str(number) for number in range(5000)]


async def test_the_file_holds_what_was_not_taken_and_is_emptied_then(tmp_path: Path) -> None:
    buffer = EventBuffer()
    buffer.put(pack_event("result", {"n": 1}))
    buffer.keep_in(tmp_path / "spool")
    buffer.put(pack_event("result", {"n": 2}))
    assert [event.data["n"] for event in LastWords(tmp_path / "spool", None)] == [1, 2]
    await buffer.poll(1, 0.0)
    buffer.put(pack_event("result", {"n": 3}))
    assert [event.rseq for event in LastWords(tmp_path / "spool", None)][-1] == 3
    await buffer.poll(3, 0.0)
    assert (tmp_path / "spool").stat().st_size == 0


async def test_a_file_that_is_never_emptied_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kodo.flow._runtime.spool.MAX_SPOOL_BYTES", 10_000)
    buffer = EventBuffer()
    buffer.keep_in(tmp_path / "spool")
    buffer.put(pack_event("result", {"n": 0}))
    for number in range(1, 2000):
        buffer.put(pack_event("result", {"n": number}))
        await buffer.poll(number, 0.0)
        assert (tmp_path / "spool").stat().st_size < 11_000
    assert list(LastWords(tmp_path / "spool", None))[-1].data == {"n": 1999}


def test_a_full_disk_is_no_error_of_the_flow(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.add(1, b"x")
    full = os.open("/dev/full", os.O_WRONLY)
    assert spool._file is not None
    os.dup2(full, spool._file)
    os.close(full)
    spool.add(2, b"x")
    assert spool._file is None
    spool.add(3, b"x")
    spool.clear()


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 12, b"\xff" * 100, bytes(8) + b"\x00\x00\x00\x02ab"])
def test_a_file_that_a_flow_has_written_into_ends_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spool").write_bytes(data)
    read_spool(tmp_path / "spool", 0, 1 << 20)
    assert list(LastWords(tmp_path / "spool", None)) == []
    assert list(LastWords(tmp_path / "none", None)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="pipes of another process are reached by /proc")
def test_what_was_printed_before_a_half_line_is_told_once(tmp_path: Path) -> None:
    body = "os.write(1, b'one\\ntwo\\nthr'); seen('stdout', b'thr'); os.write(1, b'ee\\nfo'); seen('stdout', b'fo')"
    assert [event.data["text"] for event in heard(tmp_path, f"{body}; os.abort()")] == ["one", "two", "three", "fo"]


def crash_of(folder: Path) -> object:
    error = RunnerDiedError("gone")
    add_crash(error, folder / CRASH_FILE)
    return error.signal or error.stack or None


READ = {
    "the fault handler's report": (CRASH_FILE, crash_of),
    "events": (SPOOL_FILE, lambda folder: read_spool(folder / SPOOL_FILE, 0, 1 << 20) or None),
    "half a line of stdout": ("rest-stdout", lambda folder: read_rest(folder, "stdout") or None),
    "half a line of stderr": ("rest-stderr", lambda folder: read_rest(folder, "stderr") or None),
}
"""Whatever a node reads of the files that a flow could have made."""

PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, secret: path.symlink_to(secret),
    "a link to nothing": lambda path, secret: path.symlink_to("nowhere"),
    "a pipe": lambda path, secret: os.mkfifo(path),
    "a folder": lambda path, secret: path.mkdir(),
    "a device": lambda path, secret: path.symlink_to("/dev/zero"),
    "nothing": lambda path, secret: None,
}


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("read", READ)
def test_a_node_reads_no_file_of_a_flow_but_a_plain_one(tmp_path: Path, read: str, plant: str) -> None:
    name, reads = READ[read]
    secret = tmp_path / "secret"
    secret.write_bytes(b"Fatal Python error: Aborted" + bytes(100))
    (tmp_path / "run").mkdir()
    PLANTED[plant](tmp_path / "run" / name, secret)
    assert reads(tmp_path / "run") is None


CALLS = "open|read_text|read_bytes|read_regular|readlink"


def test_every_file_of_a_flow_that_a_node_reads_is_in_the_table() -> None:
    found = set()
    for path in Path(executors.__path__[0]).rglob("*.py"):
        source = path.read_text("utf-8")
        theirs = path.parent.name in ("apart", "runner", "forking") or path.name in ("actor.py", "main.py")
        if not theirs:
            found |= {(path.name, call) for call in re.findall(rf"\b(?:{CALLS})\(", source)}
    assert found == {
        ("cluster.py", "open("),  # its own lock and log, beside the folders of flows
        ("cluster.py", "read_text("),  # its own record and token there, and the log of its start
        ("machines.py", "read_text("),  # the token of a cluster that is joined
        ("package.py", "read_regular("),  # sources of the scope that were not kept, plain files only
        ("cluster.py", "readlink("),  # of what Ray makes
        ("keeper.py", "open("),  # children of its process, by /proc
        ("last_words.py", "open("),  # pipes, by /proc
        ("niceness.py", "open("),  # its own session, by /proc
        ("niceness.py", "read_text("),  # how nice a session is, by /proc
        ("local_files.py", "open("),  # outputs, by no link at any step
    }


@pytest.mark.parametrize("wrapped", [True, False], ids=["data", "event"])
def test_an_event_above_the_bound_is_not_made_values(tmp_path: Path, wrapped: bool) -> None:
    large = msgpack.packb([{}] * (MAX_EVENT_BYTES + 2048))
    record = msgpack.packb(["result", large]) if wrapped else large
    whole = msgpack.packb(["result", msgpack.packb({"n": 1})])
    data = b"".join(
        number.to_bytes(8, "big") + len(packed).to_bytes(4, "big") + packed
        for number, packed in enumerate([whole, record, whole], 1)
    )
    (tmp_path / "spool").write_bytes(data)
    assert [event.rseq for event in LastWords(tmp_path / "spool", None)] == [1]


def spooled(path: Path, *events: bytes, first: int = 1) -> None:
    path.write_bytes(
        b"".join(
            number.to_bytes(8, "big") + len(packed).to_bytes(4, "big") + packed
            for number, packed in enumerate(events, first)
        )
    )


def test_of_a_file_that_is_larger_than_a_process_keeps_no_more_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodo.node.executors.last_words.MAX_SAID_BYTES", 2000)
    event = pack_event("result", {"text": "x" * 70})
    spooled(tmp_path / "spool", *[event] * 1000)
    words = LastWords(tmp_path / "spool", None)
    assert 1900 < len(words._events) <= 2000
    assert [event.rseq for event in words] == list(range(1, len(list(words)) + 1))


def test_what_is_known_already_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kodo.node.executors.last_words.MAX_SAID_BYTES", 2000)
    spooled(tmp_path / "spool", *[pack_event("result", {"n": n}) for n in range(1, 1001)])
    assert [event.rseq for event in LastWords(tmp_path / "spool", None, 990)] == list(range(991, 1001))


def test_values_are_made_of_one_event_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("kodo.node.executors.last_words.unpack_event", lambda packed: made.append(packed) or {})
    spooled(tmp_path / "spool", *[pack_event("result", {"n": n}) for n in range(100)])
    words = iter(LastWords(tmp_path / "spool", None))
    assert made == []
    next(words)
    assert len(made) == 1


@given(told=st.lists(st.sampled_from("ab"), max_size=30), lines=st.lists(st.sampled_from("ab"), max_size=30))
def test_lines_that_are_events_already_are_found_as_by_trying_each_length(told: list[str], lines: list[str]) -> None:
    sizes = range(min(len(told), len(lines)), 0, -1)
    assert _overlap(told, lines) == next((size for size in sizes if told[-size:] == lines[:size]), 0)


def test_many_equal_lines_are_compared_in_linear_time() -> None:
    class Counted(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

        def __ne__(self, other: object) -> bool:
            return not self == other

    size = 3000
    told: list[str] = [Counted("a") for _ in range(size)]
    assert _overlap([*told, Counted("b")], [*told, Counted("c")]) == 0
    assert Counted.compared < 20 * size
