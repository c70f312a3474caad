"""Every way to write a flow and to make events, launched by `koco`; kinds, levels and producers as they were agreed.

LangGraph and crewAI have theirs in `test_koco_life` and `crews_that_are_told`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client

from .conftest import User

AGREED = {
    ("data", 0): "inputs version flow",
    ("data", 2): "config agent task tool",
    ("process", 0): "progress final fatal",
    ("process", 1): "result result-error output",
    ("process", 2): "action action-error log stdout stderr",
    ("lock", 0): "lock candidate unlock unlock-deny unlock-timeout lock-timeout",
    ("manage", 0): "acknowledge kill delete share unshare",
}
"""The events that the design lists, with their kind and the level that sees them."""

KIND = {event: kind for (kind, _), events in AGREED.items() for event in events.split()}
LEVEL = {event: level for (_, level), events in AGREED.items() for event in events.split()}

WAYS = {
    "Async generator": ["n=2"],
    "Generated": ["n=2"],
    "Kickoff": ["topic=bikes"],
    "Invoke": ["topic=bikes"],
    "Fails": [],
    "Crashes": [],
}

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def on_ray() -> bool:
    return True


@pytest.fixture(scope="module")
def runs(address: str, base: Path) -> dict[str, Rows]:
    """What `koco run --json` printed of each."""
    user = User(base / "ways")

    def run(name: str) -> Rows:
        return user("run", f"{address}/{name}", *WAYS[name], "--json", "--no-lan").rows

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WAYS, pool.map(run, WAYS), strict=True))


def told(rows: Rows) -> list[tuple[str, Any]]:
    """Give what the flow itself made: each event after the node's own three, and its data."""
    *events, _ = rows
    assert [event["event"] for event in events[:3]] == ["version", "flow", "inputs"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    for event in events:
        assert event["kind"] == KIND[event["event"]], event
    return [(event["event"], event["data"]) for event in events[3:]]


def parted(events: list[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], dict[str, list[str]]]:
    """Give what a flow said, in order, and what it printed: between these two there is no order."""
    said = [(name, data) for name, data in events if name not in ("stdout", "stderr")]
    printed = {stream: [data["text"] for name, data in events if name == stream] for stream in ("stdout", "stderr")}
    return said, printed


def test_an_async_generator_yields_results_and_awaits_its_emitters(runs: dict[str, Rows]) -> None:
    *events, (name, final) = told(runs["Async generator"])
    assert [name for name, _ in events] == ["progress", "result"] * 2
    assert [data for name, data in events if name == "result"] == [{"number": 0}, {"number": 1}]
    assert events[0][1] == {"percent": 50.0, "done": 1, "total": 2}
    assert (name, final["result"]) == ("final", None)


def test_a_generator_that_a_yaml_file_offers(runs: dict[str, Rows]) -> None:
    events, printed = parted(told(runs["Generated"]))
    assert [data for _, data in events[:-1]] == [{"text": "number 0"}, {"text": "number 1"}]
    assert events[-1][1]["result"] == "counted"
    assert printed == {"stdout": ["before 0", "before 1"], "stderr": []}


@pytest.mark.parametrize(
    ("name", "said", "end"), [("Kickoff", "kicked off", "kickoff"), ("Invoke", "invoked", "invoke")]
)
def test_a_class_with_kickoff_or_invoke(runs: dict[str, Rows], name: str, said: str, end: str) -> None:
    (event, data), (_, final) = told(runs[name])
    assert (event, data) == ("action", {"text": said})
    assert final["result"].startswith(f"bikes by {end}")


def test_an_error_that_nobody_handles_is_fatal_and_says_where(runs: dict[str, Rows]) -> None:
    [(name, data)] = told(runs["Fails"])
    assert (name, data["type"], data["message"]) == ("fatal", "ValueError", "as it should")
    assert "in fails" in data["where"]
    assert "Traceback" in data["traceback"]
    assert runs["Fails"][-1]["state"] == "error"


def test_the_fatal_of_a_process_that_died_says_by_which_signal_and_its_last_words(runs: dict[str, Rows]) -> None:
    events, printed = parted(told(runs["Crashes"]))
    [(name, data)] = events
    assert (name, data["type"], data["signal"]) == ("fatal", "RunnerDied", "SIGSEGV")
    # What Ray's own handler of the signal manages to write may follow.
    assert printed["stderr"][0] == "about to crash"
    assert "in crashes" in data["traceback"]
    assert "Last lines of stderr:\nabout to crash" in data["traceback"]


def test_plain_code_makes_every_event_and_each_level_sees_its_own(address: str, user: User) -> None:
    run = user("run", f"{address}/Everything", "topic=bikes", "--detach", "--json", "--no-lan").row

    async def watch() -> tuple[Rows, list[Rows], Rows]:
        async with Client(home=user.home, lan=False) as client, Client(home=user.home / "bob", lan=False) as bob:
            followed = await client.run(f"{address}/{run['fid']}")
            seen: Rows = []
            async for event in followed.follow():
                seen.append(event.to_wire())
                if event.event == "lock":
                    with pytest.raises(Exception, match="it is"):
                        await followed.answer(event.data["lid"], False)
                    await followed.answer(event.data["lid"], True)
            links = [await followed.share(level=level) for level in (0, 1)]
            by_level = []
            for link in links:
                other = await bob.get(str(link))
                by_level.append([event.to_wire() async for event in other.follow()])
            await followed.ack()
            return seen, by_level, [event.to_wire() async for event in followed.follow(seen[-1]["seq"])]

    seen, by_level, managed = asyncio.run(watch())
    events, printed = parted(told([*seen, {}]))
    names = [name for name, _ in events]
    # What another process says comes when it comes: before the next event of the flow itself, or after it.
    by_the_socket = events.index(("result", {"text": "by the socket"}))
    assert names.pop(by_the_socket) == "result"
    assert names == [
        "config", "agent", "task", "tool", "progress", "progress", "action", "result", "result-error",
        "action", "action", "action", "action-error", "log", "result", "output",
        "lock", "candidate", "unlock-deny", "candidate", "unlock", "final",
    ]  # fmt: skip
    assert printed == {"stdout": ["printed", "in a thread", "in a task"], "stderr": ["by a child"]}
    [log] = [data for name, data in events if name == "log"]
    assert log == {"level": "WARNING", "logger": "ways", "text": "a warning"}
    results = [data for name, data in events if name == "result"]
    assert results == [{"found": ["bikes"]}, {"text": "by a task"}, {"text": "by the socket"}]
    whole, part = (data for name, data in events if name == "progress")
    assert (whole["percent"], "percent" in part, part["parent"]) == (25.0, False, "all")
    final = events[-1][1]
    assert final["result"] == {"topic": "bikes", "enough": True}
    assert final["runtime_s"] > 0
    assert isinstance(final["runtime"], str)
    for level, rows in enumerate(by_level):
        assert rows == [each for each in seen if LEVEL[each["event"]] <= level]
    assert [(each["event"], each["kind"]) for each in managed] == [("share", "manage")] * 2 + [
        ("acknowledge", "manage")
    ]
