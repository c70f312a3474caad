"""Progress bars, read out of what programs print."""

import json

import pytest

from kodo.flow._runtime.bars import Bar, RayBars, plain_text, progress_of


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        (
            "files:  50%|█████     | 100/200 [00:01<00:01, 98.5it/s]",
            {"percent": 50, "done": 100, "total": 200, "text": "files: [00:01<00:01, 98.5it/s]"},
        ),
        ("12it [00:01, 9.2it/s]", {"text": "12it [00:01, 9.2it/s]"}),
        ("Working... ━━━━━━━━╸━━━━━━━━━  45% 0:00:01", {"percent": 45, "text": "Working... 0:00:01"}),
        ("3/10", {"percent": 30, "done": 3, "total": 10}),
        (
            "   ━━━━━━━━━━━━━━━━━ 1.5/3.0 MB 12.3 MB/s",
            {"percent": 50, "done": 1.5, "total": 3, "text": "MB 12.3 MB/s"},
        ),
        ("2026/01/02 started", {"text": "2026/01/02 started"}),
        ("900%", {"text": ""}),
        ("[####------] 40%", {"percent": 40}),
        ("loading model", {"text": "loading model"}),
        ("10/0", {"text": "10/0"}),
    ],
)
def test_numbers_and_words_of_a_bar_are_read(text, progress):
    assert progress_of(text) == {key: value for key, value in progress.items() if value != ""}


def test_a_bar_tells_its_latest_state_once_a_second():
    bar = Bar()
    told = [bar.draw(f"\r{n}%", n / 10) for n in range(31)]
    assert [data["percent"] for data in told if data] == [10, 20, 30]
    assert bar.draw("\r31%", 3.1) is None
    assert bar.waits
    assert bar.due(3.5) is None
    assert bar.due(4.0) == {"percent": 31}
    assert (bar.due(9.0), bar.waits) == (None, False)


@pytest.mark.parametrize("line", ["", "\r", "\r\r", "\x1b[2K\r"])
def test_a_line_without_a_state_tells_nothing(line):
    bar = Bar()
    assert [bar.draw(line, now) for now in (0.0, 5.0)] == [None, None]
    assert not bar.told


def state(**changes):
    return json.dumps(
        {"__magic_token__": "__ray_tqdm_magic_token__", "x": 5, "pos": 0, "desc": "map", "total": 10, "unit": "it"}
        | {"ip": "127.0.0.1", "pid": 1, "uuid": "u1", "closed": False}
        | changes
    )


def test_bars_of_ray_are_progress_of_their_own():
    bars = RayBars()
    data = {"id": "u1", "text": "map", "done": 5, "total": 10, "percent": 50}
    assert bars.read(state(), 0.0) == (True, data)
    assert bars.read(state(x=6), 0.5) == (True, None)
    assert bars.read(state(uuid="u2", total=None), 0.5) == (True, {"id": "u2", "text": "map"})
    assert bars.read(state(x=10, closed=True), 0.6)[1]["percent"] == 100
    assert bars.read(state(x=1), 0.7)[1]["percent"] == 10


@pytest.mark.parametrize(
    "line", ["text", "{}", "__ray_tqdm_magic_token__", '{"a": "__ray_tqdm_magic_token__"}', "[]"]
)
def test_other_lines_are_no_bars(line):
    assert RayBars().read(line, 0.0) == (False, None)


def test_codes_of_terminals_are_removed():
    assert plain_text("\x1b[38;5;9ma\x1b[0m\x1b(B b\x1b[?25l") == "a b"
