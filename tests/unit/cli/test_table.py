"""Tables: whole without a terminal; on a narrow one ids are shortened first, and titles last."""

from __future__ import annotations

import pytest

from kodo.cli.invitations import invitation_table
from kodo.cli.schedules import schedule_table
from kodo.cli.table import Table

FID = "01jd2n8x4q5w6e7r8t9y0abcde"


def table(title: str = "Competitor Analysis") -> Table:
    made = Table("RUN", "FLOW", "STATE", "PROGRESS", ids=["RUN"], title="FLOW", spared=["PROGRESS"])
    made.add(f"flows.example.com/{FID}", title, "running", "42 % reading all the pages of all the competitors")
    return made


def test_it_is_whole_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    [_, row] = table().render().splitlines()
    for text in (f"flows.example.com/{FID}", "Competitor Analysis", "running", "all the competitors"):
        assert text in row


@pytest.mark.parametrize("width", [160, 100, 80, 60, 50])
def test_it_fits_and_keeps_the_title(width: int) -> None:
    lines = table().render(width).splitlines()
    assert max(map(len, lines)) <= width
    assert "Competitor Analysis" in lines[1]
    assert "running" in lines[1]


def test_an_id_is_shortened_in_its_middle_before_anything_else() -> None:
    [_, row] = table().render(100).splitlines()
    assert row.split("  ")[0] == f"flows.exam…{FID[-8:]}"
    assert "all the competitors" in row


def test_what_can_be_spared_goes_before_a_title_is_cut() -> None:
    head, row = table().render(46).splitlines()
    assert "PROGRESS" not in head
    assert "Competitor Analysis" in row
    assert "Competitor A…" not in table().render(46)
    assert "Competito…" in table().render(36) or "Competitor…" in table().render(36)


def test_a_spared_column_without_anything_in_it_is_left_out() -> None:
    made = Table("RUN", "PROGRESS", spared=["PROGRESS"])
    made.add("x", "")
    assert made.render() == "RUN\nx"


def test_wide_characters_take_two_columns() -> None:
    made = Table("NAME", "STATE")
    made.add("競合分析", "done")
    made.add("abcdefgh", "done")
    assert [line.index("done") for line in made.render().splitlines()[1:]] == [6, 10]
    for width in (20, 24, 30):
        [_, row] = table("競合分析" * 9).render(width + 30).splitlines()
        assert sum(2 if ord(each) > 0x2FFF else 1 for each in row) <= width + 30


def test_control_characters_of_cells_are_harmless() -> None:
    assert table("\x1b[2Jx\u202e").render(80).isprintable() or "\x1b" not in table("\x1b[2Jx\u202e").render(80)


def test_where_nothing_is_known_of_the_columns_only_the_last_is_cut() -> None:
    made = Table("SETTING", "VALUE", "MEANING")
    made.add("home", "/a/very/long/folder/that/people/copy", "Folder of keys and state, one for each user")
    [_, row] = made.render(60).splitlines()
    assert "/a/very/long/folder/that/people/copy" in row
    assert row.endswith("…")


@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_ids_that_are_for_being_copied_stay_whole_on_a_narrow_terminal(width: int) -> None:
    sid, at = f"flows.example.com/{FID}", "2026-12-02 06:00"
    schedules, invitations = schedule_table(False), invitation_table()
    schedules.add(sid, "Competitor Analysis", "0 7 * * MON-FRI (Europe/Berlin)", at, 3, f"{at} {FID}")
    invitations.add(sid, "live", "Greeting", "0 of 3", at, "Try it")
    for made in (schedules, invitations):
        lines = made.render(width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[1].startswith(f"{sid} ")
