"""The socket that takes events from any language."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.flow._runtime.event_socket import MAX_CONNECTIONS, MAX_LINE_BYTES, EventInlet, fits, parse_line
from kodo.p2p.errors import UsageError


@pytest.fixture
def said():
    return []


@pytest.fixture
def inlet(said):
    made = EventInlet(lambda event, data: said.append((event, data)))
    yield made
    made.close()


def write(path, *pieces):
    with socket.socket(socket.AF_UNIX) as writer:
        writer.connect(str(path))
        for piece in pieces:
            writer.sendall(piece)


def test_each_line_is_an_event_whatever_pieces_it_comes_in(inlet, said, tmp_path):
    path = inlet.start(tmp_path / "events")
    line = json.dumps({"event": "result", "data": {"text": "ä" * 100}}, ensure_ascii=False).encode() + b"\n"
    write(path, *(line[at : at + 1] for at in range(len(line))), line + line, b'{"event": "action"}')
    assert inlet.flush(10)
    assert said == [("result", {"text": "ä" * 100})] * 3 + [("action", {})]


def test_progress_is_worked_out_as_by_the_emitter(inlet, said, tmp_path):
    path = inlet.start(tmp_path / "events")
    write(path, b'{"event": "progress", "data": {"done": 1, "total": 4, "text": "x"}}\n')
    write(path, b'{"event": "progress", "data": {"percent": 1e999}}\n')
    assert inlet.flush(10)
    assert said == [("progress", {"percent": 25.0, "done": 1, "total": 4, "text": "x"}), ("progress", {})]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b'{"data": {}}',
        b'{"event": 5}',
        b'{"event": "result", "data": []}',
        b'{"event": "result", "text": "x"}',
        b'{"event": "final", "data": {"result": 1}}',
        b'{"event": "inputs", "data": {}}',
        b'{"event": "nonsense"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_bad_line_is_a_warning_that_does_not_repeat_it(inlet, said, tmp_path, line):
    write(inlet.start(tmp_path / "events"), line + b'\n{"event": "result"}\n')
    assert inlet.flush(10)
    assert [event for event, _ in said] == ["log", "result"]
    assert said[0][1]["level"] == "WARNING"
    assert line.decode(errors="replace") not in said[0][1]["text"]


def test_a_line_without_end_is_dropped_once_and_what_follows_it_counts(inlet, said, tmp_path):
    write(inlet.start(tmp_path / "events"), b"x" * (3 * MAX_LINE_BYTES) + b'\n{"event": "result"}\n')
    assert inlet.flush(10)
    assert [event for event, _ in said] == ["log", "result"]
    assert str(MAX_LINE_BYTES) in said[0][1]["text"]


def test_a_sink_that_fails_is_told_and_does_not_end_the_service(tmp_path):
    said = []

    def sink(event, data):
        if event == "result":
            raise RuntimeError("private")
        said.append((event, data))

    inlet = EventInlet(sink)
    write(inlet.start(tmp_path / "events"), b'{"event": "result"}\n{"event": "action"}\n')
    assert inlet.flush(10)
    inlet.close()
    assert [event for event, _ in said] == ["log", "action"]
    assert "private" not in said[0][1]["text"]


def test_more_connections_than_are_served_at_a_time_are_all_heard(inlet, said, tmp_path):
    path = inlet.start(tmp_path / "events")
    open_ones = []
    for _ in range(MAX_CONNECTIONS - 1):
        writer = socket.socket(socket.AF_UNIX)
        writer.connect(str(path))
        open_ones.append(writer)
    assert inlet.flush(10)
    for number in range(20):
        write(path, b'{"event": "result", "data": {"n": %d}}\n' % number)
    assert inlet.flush(10)
    assert [data["n"] for _, data in said] == list(range(20))
    for writer in open_ones:
        writer.close()


def test_nobody_else_may_write_to_it(inlet, tmp_path):
    assert stat.S_IMODE(inlet.start(tmp_path / "events").stat().st_mode) == 0o600


def test_a_path_too_long_for_a_socket_is_replaced_and_cleared_away(inlet, said, tmp_path):
    wanted = tmp_path / ("x" * 100) / "events"
    path = inlet.start(wanted)
    assert not fits(wanted)
    assert path != wanted
    write(path, b'{"event": "result"}')
    assert inlet.flush(10)
    inlet.close()
    assert said == [("result", {})]
    assert not Path(path).parent.exists()


def test_closing_twice_is_harmless_and_ends_connections(inlet, tmp_path):
    path = inlet.start(tmp_path / "events")
    with socket.socket(socket.AF_UNIX) as writer:
        writer.settimeout(10)
        writer.connect(str(path))
        assert inlet.flush(10)
        inlet.close()
        inlet.close()
        assert writer.recv(1) == b""


def test_a_line_is_read_into_name_and_data():
    assert parse_line(b'{"event": "tool", "data": {"name": "x"}}') == ("tool", {"name": "x"})
    with pytest.raises(UsageError, match="cannot emit 'lock'"):
        parse_line(b'{"event": "lock", "data": {}}')


def test_a_shell_needs_no_kodo_to_make_events(inlet, said, tmp_path):
    path = inlet.start(tmp_path / "events")
    python = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); "
        "s.connect(os.environ['KODO_EVENTS']); s.sendall(sys.stdin.buffer.read())"
    )
    command = f"""printf '{{"event":"action","data":{{"text":"by sh"}}}}\\n' | "$PYTHON" -S -c "{python}" """
    environment = {**os.environ, "KODO_EVENTS": str(path), "PYTHON": sys.executable}
    subprocess.run(["sh", "-c", command], env=environment, check=True, timeout=60)
    assert inlet.flush(10)
    assert said == [("action", {"text": "by sh"})]
