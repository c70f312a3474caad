"""QR codes in a terminal: every module is drawn, with the quiet ground around it, or it is refused."""

from __future__ import annotations

import os

import pytest
import segno

from kodo.cli import qr
from kodo.p2p.errors import UsageError

LINK = "https://flows.example.com/#get=" + "aB3_-" * 70
DARK = {" ": (True, True), "█": (False, False), "▄": (True, False), "▀": (False, True)}


@pytest.mark.parametrize("text", ["kodo:x", LINK, "ä" * 100, "1" * 2953])
def test_what_is_drawn_is_the_code(text: str) -> None:
    drawn = qr.draw_code(text)
    rows = [[DARK[each][half] for each in line] for line in drawn for half in (0, 1)]
    code = segno.make_qr(text, error="l", boost_error=False, mode="byte")
    size = code.symbol_size(border=0)[0]
    inner = [[bool(module) for module in row] for row in code.matrix]
    assert [row[4 : 4 + size] for row in rows[4 : 4 + size]] == inner
    around = [row for at, row in enumerate(rows) if not 4 <= at < 4 + size]
    assert not any(map(any, around))
    assert not any(any(row[:4]) or any(row[4 + size :]) for row in rows)
    assert len({len(row) for row in rows}) == 1
    assert len(around) >= 8


def test_a_text_that_no_code_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        qr.draw_code("1" * 2954)


def test_a_code_is_not_broken_by_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    with pytest.raises(UsageError, match="widen it"):
        qr.drawn_for(LINK)
    assert qr.drawn_for("kodo:x").count("\n") == len(qr.draw_code("kodo:x")) - 1
