"""A process that dies has said all that it said: whoever writes, and however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.flow._runtime.spool import Spool, read_spool
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.last_words import Pipes, last_words

FLOW = """
import logging, os, signal, sys
from pathlib import Path
from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.flow._runtime.capture import EventLogHandler, StreamCapture
parent = os.dup(1)
buffer = EventBuffer()
emit = lambda event, data: buffer.put(pack_event(event, data))
capture = StreamCapture(lambda event, text: emit(event, {"text": text}))
waiting = os.dup(0)
capture.start()
buffer.keep_in(Path(sys.argv[1]))
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
        return last_words(folder / "spool", pipes)
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
    assert [event.data["n"] for event in last_words(tmp_path / "spool", None)] == [1, 2]
    await buffer.poll(1, 0.0)
    buffer.put(pack_event("result", {"n": 3}))
    assert [event.rseq for event in last_words(tmp_path / "spool", None)][-1] == 3
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
    assert last_words(tmp_path / "spool", None)[-1].data == {"n": 1999}


def test_a_full_disk_is_no_error_of_the_flow() -> None:
    spool = Spool(Path("/dev/full"))
    spool.add(1, b"x")
    spool.add(2, b"x")
    spool.clear()


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 12, b"\xff" * 100, bytes(8) + b"\x00\x00\x00\x02ab"])
def test_a_file_that_a_flow_has_written_into_ends_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spool").write_bytes(data)
    read_spool(tmp_path / "spool")
    assert last_words(tmp_path / "spool", None) == []
    assert last_words(tmp_path / "none", None) == []
