"""Lines asked of a person, on a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from kodo.cli.terminal import ask_line


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give the end of a terminal at which a person types."""
    typing, terminal = os.openpty()
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield typing
    os.close(typing)


async def test_each_line_typed_ahead_answers_one_question(person: int, capsys: pytest.CaptureFixture[str]) -> None:
    os.write(person, b"Ada\n3\n")
    assert [await ask_line("name:"), await ask_line("times:")] == ["Ada", "3"]
    assert capsys.readouterr().err == "name: times: "


async def test_an_interrupted_question_ends_its_line(person: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked = asyncio.ensure_future(ask_line("name:"))
    await asyncio.sleep(0)  # lets it ask
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert capsys.readouterr().err == "name: \n"
