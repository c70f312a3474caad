"""How a log is written."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from kodo.cli.logs import LogHandler, log_commands, log_service, logs_json


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("kodo")]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


def record(message: str, **about: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "kodo.x", "levelno": 20, "levelname": "INFO", "msg": message, **about})
    made.created = 1_700_000_000.5
    return made


def test_a_line_has_its_time_and_one_line() -> None:
    assert LogHandler("text").shown(record("a\nb\x1b[2J")).startswith("2023-11-14 22:13:20.500 info: a")
    assert "\n" not in LogHandler("text").shown(record("a\nb"))


def test_json_is_one_object_with_what_it_is_about() -> None:
    text = LogHandler("json").shown(record("a\nb\x9b", run="01", event="run.done", runtime_s=1.5, password="x"))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == {
        "at": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "logger": "kodo.x",
        "message": "a\nb\x9b",
        "event": "run.done",
        "run": "01",
        "runtime_s": 1.5,
    }


def test_an_error_is_told_in_the_same_line() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        text = LogHandler("json").shown(record("failed", exc_info=sys.exc_info()))
    assert json.loads(text)["message"] == "failed: ValueError('x')"


@pytest.mark.parametrize(
    ("level", "told"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_the_level_says_what_is_logged(capsys: pytest.CaptureFixture[str], level: str, told: list[str]) -> None:
    log_service("json", level, verbose=False)
    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("kodo.x"), each)(each[0])
        getattr(logging.getLogger("another"), each)("somebody else")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == told


def test_a_command_tells_warnings_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    log_commands(verbose=False)
    logging.getLogger("kodo.x").info("i")
    logging.getLogger("kodo.x").warning("w")
    assert capsys.readouterr().err == "warning: w\n"
    assert not logs_json()
