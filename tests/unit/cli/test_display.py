"""Events for people."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from kodo.cli.display import PlainDisplay, describe, state_rows
from kodo.cli.live import LiveDisplay, show_result
from kodo.cli.text import human_time
from kodo.protocol.events import EVENTS, Event, RunView

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e[bold]x[/bold]\r"


def event(event_name: str, seq: int = 1, /, **data: Any) -> Event:
    kind = EVENTS[event_name].kind if event_name in EVENTS else "process"
    return Event(seq, 1_700_000_000_000, str(kind), event_name, data)


def clean(text: str) -> bool:
    return not any(character in text for character in "\x1b\x07\u202e\r\x9b")


def live(*events: Event) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=100, color_system=None)
    display = LiveDisplay(console, f"flow {EVIL}", now=lambda: 0.0)
    view = RunView()
    for each in events:
        view.apply(each)
        display.show(each, view)
    console.print(display.render())
    return out.getvalue()


def test_progress_tells_percent_count_and_text() -> None:
    assert describe(event("progress", percent=42, done=3, total=10, text="reading")) == " 42 % 3/10 reading"


def test_data_of_no_known_form_are_shown_as_names_and_values() -> None:
    assert (
        describe(event("result", package="re", lines=2574, of=["a", {"b": 1}]))
        == 'package re, lines 2574, of ["a", {"b": 1}]'
    )
    assert describe(event("action", text="connect", modules=3)) == "connect (modules 3)"
    assert describe(event("action", text=["odd"])) == '["odd"]'
    assert describe(event("inputs")) == ""


def test_a_share_says_for_whom_and_until_when_it_is() -> None:
    terms = {"sid": "s1", "by": "ana", "level": 1, "mode": "r", "expires_at": 0, "downloads": None}
    told = describe(event("share", link=True, to={"users": [], "roles": []}, **terms))
    assert told == f"s1  link  level 1 r  (until {human_time(0)})"
    named = describe(event("share", link=False, to={"users": ["bob"], "roles": ["user"]}, **terms))
    assert named == f"s1  bob, user  level 1 r  (until {human_time(0)})"


def test_no_event_acts_on_the_terminal() -> None:
    for name in [*EVENTS, "unheard-of"]:
        keys = ["text", "name", "title", "lid", "level", "logger", "type", "message", "where", "by", "answer", "role"]
        data = {**dict.fromkeys(keys, EVIL), "reasons": [EVIL], "id": EVIL, "done": EVIL, EVIL: EVIL}
        assert clean(describe(event(name, **data)).replace("\n", "")), name
        assert clean(live(event(name, **data))), name


def test_events_of_odd_types_are_shown_all_the_same() -> None:
    for name in EVENTS:
        for value in (None, 3, [], {"a": None}, float("nan"), b"x"):
            describe(event(name, text=value, percent=value, reasons=value, size=value, done=1, total=value))
            live(event(name, text=value, percent=value, done=value, total=value, id=value, parent=value))


def test_plain_lines_carry_the_number_and_the_kind() -> None:
    out: list[str] = []
    PlainDisplay(out.append).show(event("result", 7, text="a\nb"), RunView())
    assert out[0].split()[1:] == ["7", "result", "a", "b"]
    assert "\n    b" in out[0]


def test_markup_in_a_text_is_text() -> None:
    assert "[bold]x[/bold]" in live(event("result", text="[bold]x[/bold]"))


def test_nested_progress_grows_as_a_tree() -> None:
    shown = live(
        event("progress", 1, id="a", text="whole", percent=10),
        event("progress", 2, id="b", parent="a", text="part", done=1, total=2),
        event("agent", 3, name="Researcher"),
    )
    whole, part = (next(row for row in shown.splitlines() if word in row) for word in ("whole", "part"))
    assert part.index("━") > whole.index("━")
    assert "Researcher" in shown


def test_the_tree_shows_the_latest_of_each_step_where_it_stood_and_of_the_run() -> None:
    shown = live(
        *(event("progress", number, id=name, text=f"{name} begun") for number, name in enumerate("ab", 1)),
        event("progress", 3, id="a", text="a ended"),
        event("progress", 4, text="the whole"),
    )
    places = [shown.index(text) for text in ("the whole", "a ended", "b begun")]
    assert places == sorted(places)
    assert "a begun" not in shown


def test_progress_whose_parents_form_a_circle_is_no_endless_tree() -> None:
    live(event("progress", 1, id="a", parent="b"), event("progress", 2, id="b", parent="a"))
    assert "self" in live(event("progress", 1, id="s", parent="s", text="self"))


def test_a_state_is_for_people_and_leaves_out_what_is_empty() -> None:
    rows = state_rows(
        {
            "node": {"name": "here", "peer_id": "12D3"},
            "state": "locked",
            "progress": {"percent": 66.66667, "text": "step" + EVIL},
            "runtime_s": 8.281,
            "final": {"result": "# Hello", "runtime_s": 1},
            "fatal": None,
            "locks": [{"lid": "a", "title": "Where?", "expires_at": -1}, {"lid": "b", "title": EVIL}],
            "outputs": [{"name": "x.txt", "size": 33}],
            "shares": [
                {"sid": "s", "state": "live", "link": True, "to": {}, "level": 1, "mode": "r", "expires_at": -1},
                {
                    "sid": "t",
                    "state": "suspended",
                    "to": {"users": ["ana"], "roles": [EVIL]},
                    "level": 2,
                    "mode": "x",
                },
            ],
            "totals": {"outputs": 1, "locks": 7, "shares": 0},
            "created": 1_800_000_000_000,
            "tags": [],
        }
    )
    shown = dict(rows)
    assert rows[0] == ("node", "here  12D3")
    assert (shown["state"], shown["runtime_s"], shown["final"]) == ("locked", "8.3 s", "# Hello")
    assert shown["progress"].strip().startswith("67 % step")
    assert (shown["outputs"], shown["locks"]) == ("x.txt (33 B)", "a  Where?  (until )")
    assert shown["shares"] == "s  live  link  level 1 r  (until )"
    assert any(text.startswith("t  suspended  ana, ") and "level 2 x" in text for _, text in rows)
    assert shown["created"].startswith("2027-01-1")
    assert not {"fatal", "tags", "totals"} & set(shown)
    assert ("", "and 5 more") in rows
    assert all(clean(text) for _, text in rows)


def shown(*events: Event, width: int = 100, file: io.StringIO | None = None, **options: Any) -> str:
    """Give what a terminal has on it in the end."""
    out = file or io.StringIO()
    console = Console(file=out, force_terminal=False, width=width, color_system=None)
    view = RunView()
    with LiveDisplay(console, "title", now=lambda: 0.0, **options) as display:
        for each in events:
            view.apply(each)
            display.show(each, view)
    return out.getvalue()


def test_results_with_the_same_names_are_one_table_and_others_begin_another() -> None:
    text = shown(
        *(event("result", seq, package=f"p{seq}", files=seq) for seq in range(1, 30)),
        event("result", 30, city="Ulm", rank=1),
        event("result", 31, text="a text"),
    )
    assert [text.count(word) for word in ("package", "city")] == [1, 1]
    assert all(f"p{seq} " in text for seq in range(1, 30))
    assert text.index("p29") < text.index("Ulm") < text.index("◆ a text")


def test_a_table_that_grows_shows_its_latest_rows_and_is_bounded() -> None:
    text = live(*(event("result", seq, package=f"p{seq}", files=seq) for seq in range(1, 431)))
    assert "p430" in text
    assert "and 20 earlier" in text
    assert text.count("package") == 3


def test_a_number_is_not_cut_where_its_column_is_narrow() -> None:
    text = shown(event("result", 1, name="x" * 200, lines=1234567, share=0.125), width=40)
    assert "1234567" in text
    assert "0.125" in text
    assert max(map(len, text.splitlines())) <= 40


def test_logs_are_counted_unless_they_are_asked_for() -> None:
    events = [event("log", 1, level="INFO", logger="a", text="hidden"), event("stdout", 2, text="hidden")]
    folded, whole = shown(*events), shown(*events, logs=True)
    assert ("hidden" in folded, "2 lines of log" in folded) == (False, True)
    assert (whole.count("hidden"), "lines of log" in whole) == (2, False)


def test_the_header_stays_after_the_end_and_fits() -> None:
    events = [event("flow", 1, name="Competitor Analysis of Everything"), event("final", 2, runtime_s=3)]
    for width in (40, 60, 100):
        [row] = shown(*events, width=width, place="12D3KooW" + "x" * 44, route=lambda: "lan").splitlines()
        assert row.startswith("✓ Competitor")
        assert "done" in row
        assert len(row) <= width
    assert "x" * 44 in shown(*events, place="12D3KooW" + "x" * 44, wide=True).replace("\n", "")


def test_a_terminal_that_takes_ascii_alone_gets_no_other_signs() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    text = shown(
        event("result", 1, text="r"),
        event("output", 2, name="o", size=1),
        event("lock", 3, title="Which?", lid="l"),
        event("fatal", 4, type="ValueError", message="m"),
        file=Ascii(),
    )
    assert text.isascii()
    assert "* r" in text


def test_messages_of_models_are_shown_as_what_they_say() -> None:
    more: dict[str, Any] = {"additional_kwargs": {}, "response_metadata": {}, "id": "x" * 300}
    said = {"content": "it shines", "type": "ai", "tool_calls": [], **more}
    call = {"content": "", "type": "ai", "tool_calls": [{"name": "lookup", "args": {"key": 1}}], **more}
    text = describe(event("result", 1, node="think", update={"messages": [said, call], "content": "mine", "n": 2}))
    assert text == 'node think, update {"messages": ["it shines", {"calls": ["lookup"]}], "content": "mine", "n": 2}'
    assert (
        describe(event("result", 2, page={"content": "whole", "size": 3})) == 'page {"content": "whole", "size": 3}'
    )


def test_the_title_of_a_lock_is_shown_by_its_form_or_once_by_what_becomes_of_it() -> None:
    out = io.StringIO()
    view = RunView()
    locks = [event("lock", seq, title=f"Title {lid}?", lid=lid) for seq, lid in enumerate("abc", 1)]
    with LiveDisplay(Console(file=out, force_terminal=False, width=80), "title", now=lambda: 0.0) as display:
        for each in locks:
            view.apply(each)
            display.show(each, view)
        with display.pause("a"):
            for each in (
                event("unlock-deny", 4, lid="a", reasons=["too small"]),
                event("unlock", 5, lid="b", answer=1),
            ):
                view.apply(each)
                display.show(each, view)
        display.show(event("unlock", 6, lid="a", answer=2), view)
    told = [row for row in out.getvalue().splitlines() if row[:1] in "?✓✗" and "title" not in row]
    assert told == ["? Title b?", "✓ 1", "✓ 2", "? Title c?"]  # the form shows what is wrong, too


def test_a_run_that_waits_for_its_turn_shows_its_place_until_it_begins() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=100, color_system=None)
    display, view = LiveDisplay(console, "title", now=lambda: 0.0), RunView()
    for each in (event("flow", 1, name="F"), event("inputs", 2, n=1)):
        view.apply(each)
        display.show(each, view)
    assert display.waits
    display.queue(3)
    console.print(display.render())
    started = event("progress", 3, percent=1)
    view.apply(started)
    display.show(started, view)
    assert not display.waits
    console.print(display.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("queued (3)") < text.index("running")


def test_a_result_is_shown_as_markdown_or_json_and_acts_on_nothing() -> None:
    for result in (
        f"# Head {EVIL}\n\n| a | b |\n|--|--|\n| 1 | {EVIL} |\n\n[link](https://x.example)",
        {"a": [EVIL]},
    ):
        out = io.StringIO()
        show_result(Console(file=out, force_terminal=True, width=60, color_system=None), result)
        assert "\x1b]" not in out.getvalue()
        assert "\x1b[2J" not in out.getvalue()
        assert "\u202e" not in out.getvalue()


LOOKUP = {"tool": "lookup", "agent": "Writer"}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("action", {**LOOKUP, "phase": "start", "arguments": {"word": "star", "n": 2}}, 'lookup(word="star", n=2) …'),
        (
            "action",
            {**LOOKUP, "phase": "end", "output": "it\nshines", "runtime_s": 0.2},
            "lookup → it shines (0.2 s)",
        ),
        ("action", {**LOOKUP, "phase": "end", "deferred": True, "runtime_s": 1}, "lookup waits for a decision"),
        ("action", {**LOOKUP, "phase": "end"}, "lookup done"),
        ("action", {**LOOKUP, "phase": "text", "text": "Once"}, "lookup: Once"),
        ("action-error", {**LOOKUP, "type": "ValueError", "message": "no"}, "lookup failed: ValueError: no"),
        (
            "action",
            {"model": "small", "agent": "Writer", "phase": "end", "usage": {"input_tokens": 3, "output_tokens": 4}},
            "small, 3 + 4 tokens",
        ),
    ],
)
def test_a_step_of_an_agent_is_one_short_line(name: str, data: dict[str, Any], told: str) -> None:
    assert describe(event(name, **data)) == f"Writer: {told}"


def test_a_step_stays_below_until_it_ends_and_then_scrolls_by_once() -> None:
    start, end = (
        {**LOOKUP, "phase": "start", "arguments": {"word": "star"}},
        {**LOOKUP, "phase": "end", "output": "x"},
    )
    under_way = live(event("action", **start))
    assert "└── Writer: lookup" in under_way
    assert "›" not in under_way
    over = live(event("action", **start), event("action", 2, **end))
    assert '› Writer: lookup(word="star") → x' in over
    assert over.count("lookup") == 1
    failed = live(event("action", **start), event("action-error", 2, **LOOKUP, message="no"))
    assert '✗ Writer: lookup(word="star") failed: no' in failed


def test_text_of_a_graphs_node_is_shown_as_its_own() -> None:
    assert describe(event("action", node="speak", phase="text", text="Once upon")) == "speak: Once upon"


def test_what_says_no_more_than_a_name_is_no_step() -> None:
    assert describe(event("action", name="x", number=3)) == "name x, number 3"
    many = [event("action", number, tool=str(number), phase="start") for number in range(200)]
    assert live(*many).count("›") == 100
