"""Output capture, in a process of its own because it takes over file descriptors."""

import json
import os
import subprocess
import sys

import pytest

from kodo.flow._runtime.capture import MAX_LINE_BYTES

SCRIPT = """
import json, os, subprocess, sys
from kodo.flow._runtime.capture import StreamCapture
real = os.dup(1)
lines = []
capture = StreamCapture(lambda event, text: lines.append([event, text]))
capture.start()
{body}
assert capture.flush(10)
os.write(real, json.dumps(lines).encode())
os._exit(0)
"""


def captured(body: str, script: str = SCRIPT) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", script.replace("{body}", body)],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stderr == b""
    lines: list[list[str]] = json.loads(done.stdout)
    return lines


def test_prints_writes_and_children_are_lines():
    body = "print('a\\nb')\nos.write(1, b'c\\n')\nsubprocess.run(['echo', 'd'])\nos.write(2, b'e')"
    lines = captured(body)
    assert [text for event, text in lines if event == "stdout"] == ["a", "b", "c", "d"]
    assert [text for event, text in lines if event == "stderr"] == ["e"]


def test_a_system_that_forbids_to_look_into_pipes_loses_no_line():
    forbidden = SCRIPT.replace(
        "capture.start()",
        """
from kodo.flow._runtime import capture as module
def refuse():
    raise PermissionError(1, "tee")
module._peeker = lambda descriptor: refuse
capture.start()""",
    )
    # More than a pipe holds: nobody reads it, so this would wait for ever.
    lines = captured("print('a' * 200 + '\\n', end='', flush=True)\nprint('b\\n' * 50_000, end='')", forbidden)
    assert len(lines) == 50_001


def test_a_tail_without_line_end_is_kept():
    assert captured("sys.stdout.write('tail')") == [["stdout", "tail"]]


def test_bytes_that_are_no_utf8_are_replaced():
    assert captured("os.write(1, b'\\xff\\n')") == [["stdout", "\ufffd"]]


def test_a_redrawn_line_is_what_a_screen_would_show():
    assert captured("os.write(1, b'10%\\r50%\\r100%\\r\\n')") == [["stdout", "100%"]]


def test_a_long_line_is_cut_between_characters():
    lines = captured("os.write(1, b'\\xc3\\xa4' * 40000)")
    assert "".join(text for _, text in lines) == "ä" * 40000
    assert max(len(text.encode()) for _, text in lines) <= MAX_LINE_BYTES


def test_a_long_tail_is_cut_also_when_the_flush_comes_with_it_in_one_read():
    # The pipe is left full until the mark is in it too, as happens by chance when the reader is slow.
    body = "\n".join(
        [
            "read = os.read",
            "def late(fd, size):",
            "    data = read(fd, size)",
            "    while data.startswith(b'x') and len(data) < size and not data.endswith(b'\\n'):",
            "        data += read(fd, size - len(data))",
            "    return data",
            "os.read = late",
            "os.write(1, b'.\\n')",  # lets a read that had begun before go by
            "os.write(1, b'x' * 50000)",
        ]
    )
    lines = captured(body)
    assert "".join(text for _, text in lines if text != ".") == "x" * 50000
    assert max(len(text) for _, text in lines) <= MAX_LINE_BYTES


def test_stdin_is_empty():
    assert captured("print(repr(sys.stdin.read()))") == [["stdout", "''"]]


def test_a_child_that_goes_on_does_not_hold_up_the_end():
    lines = captured("child = subprocess.Popen(['sleep', '600'])\nprint('x')\ncapture.flush(10)\nchild.kill()")
    assert lines == [["stdout", "x"]]


PATIENT = SCRIPT.replace("capture.flush(10)", "capture.flush(1000)")
"""Waits for longer than the process may take, where a mark does not arrive."""


@pytest.mark.parametrize("descriptors", ["0", "1", "2", "0, 1, 2"])
def test_what_is_printed_after_a_flow_closed_its_streams_is_told(descriptors):
    body = f"print('a')\nfor each in ({descriptors},): os.close(each)\nprint('b')\nprint('c', file=sys.stderr)"
    lines = captured(body, PATIENT)
    assert [text for event, text in lines if event == "stdout"] == ["a", "b"]
    assert [text for event, text in lines if event == "stderr"] == ["c"]


def test_a_file_that_a_flow_has_put_in_the_place_of_its_output_gets_what_is_printed_and_no_mark(tmp_path):
    body = f"""
print('a')
file = os.open({str(tmp_path / "file")!r}, os.O_WRONLY | os.O_CREAT)
os.dup2(file, 1)
print('b')"""
    assert captured(body, PATIENT) == [["stdout", "a"]]
    assert (tmp_path / "file").read_text() == "b\n"


def test_the_end_of_a_flow_that_closed_every_end_of_its_pipes_waits_for_nothing_and_its_files_get_no_mark(tmp_path):
    body = f"""
for end in capture._ends:
    os.close(end._descriptor)
    os.open({str(tmp_path / "file")!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(real, 1)
os.dup2(real, 2)"""
    assert captured(body, PATIENT) == []
    assert (tmp_path / "file").read_bytes() == b""


def test_colours_and_movements_of_a_terminal_are_left_out():
    assert captured("print('\\x1b[1;31mred\\x1b[0m \\x1b]8;;http://a\\x07link\\x1b]8;;\\x07 \\x1b[2K\\x1b[1A')") == [
        ["stdout", "red link "]
    ]


DRAWING = SCRIPT.replace(
    "capture.start()",
    """
import time
from kodo.flow._runtime import bars, capture as module
capture.draw = lambda data: lines.append(["progress", data])
module.EVERY_S = bars.EVERY_S = 0.05
def until(told):
    while told not in [line[1].get("text") for line in lines if line[0] == "progress"]:
        time.sleep(0.01)
capture.start()""",
)


def test_a_bar_is_progress_while_it_is_drawn_and_one_line_in_the_end():
    body = """
for state in (b'\\r 10% b', b'\\r 20% c', b'\\r 30% d'):
    os.write(2, state)
    until(state[-1:].decode())
os.write(2, b'\\r100% e\\n')
"""
    lines = captured(body, DRAWING)
    states = ((10, "b"), (20, "c"), (30, "d"), (100, "e"))
    drawn = [["progress", {"id": "stderr", "percent": percent, "text": text}] for percent, text in states]
    assert lines == [*drawn, ["stderr", "100% e"]]


def test_a_bar_that_is_not_ended_is_told_without_what_flushes_it():
    body = """
drawn = []
capture.draw = lambda event, data=None: drawn.append(event if data is None else data)
for state in range(20):
    os.write(2, b'\\r%d/20 |###|' % state)
    import time; time.sleep(0.1)
assert capture.flush(10)
assert drawn, 'it is drawn'
lines.append(['drawn', str(drawn)])
"""
    told = dict(map(tuple, captured(body)))
    assert "19/20" in told["drawn"] + told["stderr"]
    assert "kodo-" not in str(told)


def test_a_bar_that_is_longer_than_a_line_may_be_is_told_once():
    body = "[os.write(1, b'\\r' + b'%d%%' % (n % 100)) for n in range(50_000)]\nos.write(1, b'\\rdone\\n')"
    lines = captured(body)
    assert lines == [["stdout", "done"]]
