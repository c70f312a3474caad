"""The event log: what is answered is stored, numbered without gaps, once, and still there after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kodo.node.store.queries import _SEARCHED_BYTES, RunFilter
from kodo.node.store.rows import (
    Created,
    KeyReusedError,
    NewEvent,
    OnceKey,
    OutputRow,
    RunOverError,
    SearchTooLongError,
    digest_of,
)
from kodo.node.store.store import Store
from kodo.p2p.errors import CapacityError, NotFoundError, UsageError
from kodo.protocol.events import MAX_EVENT_BYTES, RunState
from kodo.protocol.manifest import ManifestBuilder
from tests.unit.node.conftest import FIRST, StillClock, fid_of, logs, new_run

FID = fid_of(1)


async def test_a_run_and_its_first_events_are_stored_together(store: Store) -> None:
    assert await store.create(new_run(), FIRST) == Created(FID, True)
    row = await store.run(FID)
    assert row is not None
    assert (row.principal, row.path, row.tags, row.state) == (
        "ana",
        "flows.market.Competitor",
        ("market",),
        RunState.PENDING,
    )
    assert (row.last_seq, row.last_rseq, row.handed) == (3, 0, False)
    assert [(event.seq, event.event) for event in await store.events(FID)] == [
        (1, "version"),
        (2, "flow"),
        (3, "inputs"),
    ]


async def test_seq_goes_on_without_gaps_and_kind_comes_from_the_table(store: Store) -> None:
    await store.create(new_run(), FIRST)
    stored = await store.append(FID, logs(1, 2))
    assert [(event.seq, event.kind, event.data["text"]) for event in stored] == [
        (4, "process", "line 1"),
        (5, "process", "line 2"),
    ]


async def test_an_rseq_that_is_stored_already_is_skipped_silently(store: Store) -> None:
    await store.create(new_run(), FIRST)
    await store.append(FID, logs(1, 5))
    stored = await store.append(FID, logs(3, 7))
    assert [(event.seq, event.data["text"]) for event in stored] == [(9, "line 6"), (10, "line 7")]
    row = await store.run(FID)
    assert row is not None
    assert row.last_rseq == 7


async def test_at_never_decreases_when_the_clock_goes_back(store: Store, clock: StillClock) -> None:
    await store.create(new_run(), FIRST)
    before = clock.ms
    clock.ms -= 60_000
    stored = await store.append(FID, logs(1, 1))
    assert stored[0].at == before


async def test_state_stands_in_the_row_with_the_events_that_make_it(store: Store) -> None:
    await store.create(new_run(), FIRST)
    states = []
    for new in (
        NewEvent.make("lock", {"lid": "a"}, 1),
        NewEvent.make("lock", {"lid": "b"}, 2),
        NewEvent.make("unlock", {"lid": "a"}, 3),
        NewEvent.make("lock-timeout", {"lid": "b"}),
        NewEvent.make("progress", {"percent": 40}, 4),
        NewEvent.make("final", {"result": 1, "runtime_s": 2.5}, 5),
    ):
        await store.append(FID, [new])
        row = await store.run(FID)
        assert row is not None
        states.append(row.state.value)
    assert states == ["locked", "locked", "locked", "pending", "pending", "done"]
    assert row is not None
    assert (row.progress, row.runtime_s) == ({"percent": 40}, 2.5)


async def test_nothing_but_manage_events_follows_the_end(store: Store) -> None:
    await store.create(new_run(), FIRST)
    await store.append(FID, [NewEvent.make("final", {}, 1)])
    with pytest.raises(RunOverError) as caught:
        await store.append(FID, [NewEvent.make("fatal", {"type": "X", "message": ""})])
    assert caught.value.state is RunState.DONE
    with pytest.raises(RunOverError):
        await store.append(FID, [NewEvent.make("kill", {"by": "ana"})])
    await store.append(FID, [NewEvent.make("acknowledge", {"by": "ana"})])
    assert [event.event for event in await store.events(FID, 3)] == ["final", "acknowledge"]


async def test_a_batch_that_goes_on_after_its_own_end_stores_nothing(store: Store) -> None:
    await store.create(new_run(), FIRST)
    with pytest.raises(RunOverError):
        await store.append(FID, [NewEvent.make("final", {}, 1), *logs(2, 2)])
    assert len(await store.events(FID)) == 3


async def test_an_event_for_no_run_is_refused_and_others_pass(store: Store) -> None:
    await store.create(new_run(), FIRST)
    refused, stored = await asyncio.gather(
        store.append(fid_of(9), logs(1, 1)), store.append(FID, logs(1, 1)), return_exceptions=True
    )
    assert isinstance(refused, NotFoundError)
    assert isinstance(stored, list)
    assert len(stored) == 1


async def test_a_write_that_sqlite_refuses_does_not_take_others_with_it(store: Store) -> None:
    await store.create(new_run(), FIRST)
    doubled, stored = await asyncio.gather(
        store.create(new_run(), FIRST), store.append(FID, logs(1, 3)), return_exceptions=True
    )
    assert isinstance(doubled, Exception)
    assert [event.seq for event in stored] == [4, 5, 6]  # type: ignore[union-attr]
    assert [event.seq for event in await store.events(FID)] == [1, 2, 3, 4, 5, 6]


async def test_the_same_key_gives_the_same_run_and_other_contents_are_refused(store: Store) -> None:
    def key(value: str, inputs: object, principal: str = "ana") -> OnceKey:
        return OnceKey(principal, "k1", value, digest_of(inputs))

    assert (await store.create(new_run(1), FIRST, key(FID, {"a": 1, "b": 2}))).fresh
    assert await store.create(new_run(2), FIRST, key(fid_of(2), {"b": 2, "a": 1})) == Created(FID, False)
    with pytest.raises(KeyReusedError):
        await store.create(new_run(3), FIRST, key(fid_of(3), {"a": 2}))
    assert (await store.create(new_run(4), FIRST, key(fid_of(4), {"a": 2}, "bob"))).fresh
    assert await store.run(fid_of(2)) is None


async def test_launches_at_once_under_one_key_make_one_run(store: Store) -> None:
    created = await asyncio.gather(
        *(store.create(new_run(n), FIRST, OnceKey("ana", "k", fid_of(n), b"d" * 32)) for n in range(1, 21))
    )
    assert len({answer.fid for answer in created}) == 1
    assert sum(answer.fresh for answer in created) == 1


async def test_a_key_is_forgotten_after_a_day(store: Store, clock: StillClock) -> None:
    await store.create(new_run(1), FIRST, OnceKey("ana", "k", fid_of(1), b"d" * 32))
    clock.advance(24 * 3600)
    assert (await store.create(new_run(2), FIRST, OnceKey("ana", "k", fid_of(2), b"e" * 32))).fresh


async def test_events_under_a_known_key_are_not_stored_again(store: Store) -> None:
    await store.create(new_run(), FIRST)
    new = [NewEvent.make("candidate", {"lid": "a", "cid": "c1"})]
    assert await store.append_once(FID, new, OnceKey("ana", "k", "c1", b"d" * 32)) is None
    assert await store.append_once(FID, new, OnceKey("ana", "k", "c2", b"d" * 32)) == "c1"
    assert len(await store.events(FID)) == 4


async def test_everything_is_there_after_a_reopening(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Store(path) as store:
        await store.create(new_run(), FIRST)
        await store.append(FID, [NewEvent.make("lock", {"lid": "a"}, 1)])
        await store.hand(FID)
    async with Store(path) as store:
        row = await store.run(FID)
        assert row is not None
        assert (row.state, row.last_seq, row.last_rseq, row.handed) == (RunState.LOCKED, 4, 1, True)
        stored = await store.append(
            FID, [NewEvent.make("lock", {"lid": "a"}, 1), NewEvent.make("unlock", {"lid": "a"}, 2)]
        )
        assert [(event.seq, event.event) for event in stored] == [(5, "unlock")]
        row = await store.run(FID)
        assert row is not None
        assert row.state is RunState.PENDING


async def test_runs_are_paged_latest_first_and_filtered(store: Store, clock: StillClock) -> None:
    for number in range(1, 8):
        path = "a.A" if number % 2 else "b.B"
        await store.create(new_run(number, "ana", path), FIRST)
        clock.advance(1)
    await store.create(new_run(8, "bob"), FIRST)
    await store.append(fid_of(2), [NewEvent.make("final", {}, 1)])
    page = await store.runs(RunFilter("ana"), p=2, pp=3)
    assert (page.total, page.filtered, [row.fid for row in page.rows]) == (7, 7, [fid_of(4), fid_of(3), fid_of(2)])
    assert [row.fid for row in (await store.runs(RunFilter("ana", state="done"))).rows] == [fid_of(2)]
    page = await store.runs(RunFilter("ana", path="b.B"))
    assert (page.total, page.filtered) == (7, 3)
    since = clock.ms - 2000
    assert [row.fid for row in (await store.runs(RunFilter("ana", since=since))).rows] == [fid_of(7), fid_of(6)]


async def test_runs_are_found_by_flow_tag_time_and_text(store: Store, clock: StillClock) -> None:
    made = {
        1: ("ana", "flows.Report", "Weekly Report", ("Q4", "ulm"), {"topic": "Straße", "n": 37}),
        2: ("ana", "flows.Chart", "Chart", (), {"topic": "cars"}),
        3: ("bob", "flows.Report", "Weekly Report", ("Q4",), {"topic": "Straße"}),
    }
    times = {}
    for number, (who, path, name, tags, inputs) in made.items():
        run = replace(new_run(number, who, path), name=name, tags=tags)
        await store.create(run, [NewEvent.make("version", {}), NewEvent.make("inputs", inputs)])
        times[number] = clock.now_ms()
        clock.advance(1)

    async def found(**wanted: Any) -> list[int]:
        page = await store.runs(RunFilter("ana", **wanted))
        assert page.filtered == len(page.rows)
        return [int(row.fid.lstrip("0") or 0) for row in page.rows]

    everybody = {"others": lambda path: True}
    for flow in ("*report", "FLOWS.rep*", "weekly*"):
        assert await found(flow=flow) == [1]
    assert await found(flow="report") == []
    assert await found(flow="*", **everybody) == [3, 2, 1]
    assert await found(tag="q4", **everybody) == [1]  # others' tags are not to be probed
    assert await found(tag="q") == []
    for text in ("WEEKLY", "ulm", "STRASSE", "topic", "37", fid_of(1)[-8:]):
        assert await found(search=text) == ([1] if text != "topic" else [2, 1])
    assert await found(search="straße", **everybody) == [1]  # nor are their inputs
    assert await found(search="weekly", **everybody) == [3, 1]
    assert await found(until=times[2]) == [1]
    assert await found(since=times[2], until=times[2] + 1) == [2]
    assert await found(search="weekly", flow="*chart*") == []


async def test_a_search_in_texts_takes_only_so_much_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"topic": "Straße", "text": "x" * (_SEARCHED_BYTES * 2) + "needle"}
    await store.create(new_run(1), [NewEvent.make("version", {}), NewEvent.make("inputs", long)])
    assert len((await store.runs(RunFilter("ana", search="STRASSE"))).rows) == 1
    assert (await store.runs(RunFilter("ana", search="needle"))).rows == []  # so far nobody looks
    monkeypatch.setattr("kodo.node.store.queries.SEARCH_SECONDS", -1.0)
    with pytest.raises(SearchTooLongError, match="narrow it"):
        await store.runs(RunFilter("ana", search="topic"))
    assert len((await store.runs(RunFilter("ana", flow="*"))).rows) == 1


async def test_a_run_that_waits_is_queued_and_another_runs(store: Store) -> None:
    for number in (1, 2):
        await store.create(new_run(number), FIRST)
    waits = frozenset([fid_of(2)])
    for state, number in (("queued", 2), ("running", 1)):
        page = await store.runs(RunFilter(new_run(1).principal, state=state, queued=waits))
        assert [row.fid for row in page.rows] == [fid_of(number)]


async def test_inputs_are_the_latest_of_those_at_the_beginning(store: Store) -> None:
    await store.create(new_run(1), [NewEvent.make("inputs", {"a": 1})])
    await store.append(fid_of(1), [NewEvent.make("inputs", {"a": 2})])
    assert await store.inputs([fid_of(1), fid_of(9)]) == {fid_of(1): {"a": 2}}


async def test_unfinished_runs_are_found_oldest_first(store: Store) -> None:
    for number in (1, 2, 3):
        await store.create(new_run(number), FIRST)
    await store.append(fid_of(2), [NewEvent.make("fatal", {"type": "X", "message": "y"})])
    assert [row.fid for row in await store.unfinished()] == [fid_of(1), fid_of(3)]


async def test_a_view_is_what_the_events_add_up_to(store: Store) -> None:
    await store.create(new_run(), FIRST)
    await store.append(
        FID, [NewEvent.make("agent", {"name": "a"}, 1), NewEvent.make("progress", {"percent": 9}, 2), *logs(3, 4)]
    )
    view = await store.view(FID)
    assert view is not None
    assert (view.inputs, view.agents, view.progress, view.last_seq) == (
        {"topic": "bikes"},
        [{"name": "a"}],
        {"percent": 9},
        7,
    )
    assert await store.view(fid_of(9)) is None


async def test_an_output_and_its_event_are_stored_together(store: Store) -> None:
    builder = ManifestBuilder()
    builder.update(b"x" * (2 << 20) + b"y")
    output = OutputRow("charts/a.svg", "image/svg+xml", builder.finish())
    await store.create(new_run(), FIRST)
    await store.append(FID, [NewEvent.make("output", {"name": "charts/a.svg"}, 1)], outputs=[output])
    assert await store.output(FID, "charts/a.svg") == output
    assert [row.name for row in (await store.outputs(FID))[1]] == ["charts/a.svg"]
    assert await store.output(FID, "other") is None


async def test_published_stays_what_it_was_first(store: Store, clock: StillClock) -> None:
    first = clock.ms
    assert await store.published([("a.A", "1")]) == [first]
    clock.advance(5)
    assert await store.published([("a.A", "1"), ("a.A", "2")]) == [first, first + 5000]


async def test_a_counter_rises_even_when_the_clock_falls(store: Store, clock: StillClock) -> None:
    one = await store.count("record")
    clock.ms -= 100_000
    assert await store.count("record") == one + 1


async def test_subscribers_hear_of_commits_in_order_and_only_after_them(store: Store) -> None:
    heard: list[int] = []
    store.subscribe(lambda commit: heard.extend(event.seq for event in commit.events))
    await store.create(new_run(), FIRST)
    await asyncio.gather(*(store.append(FID, logs(n, n)) for n in range(1, 50)))
    assert heard == list(range(1, 53))


async def test_a_full_disk_acknowledges_nothing_and_the_store_works_on(tmp_path: Path) -> None:
    async with Store(tmp_path / "x.db", max_bytes=400_000) as store:
        await store.create(new_run(), FIRST)
        big = [NewEvent.make("log", {"text": "x" * 200_000}, n) for n in (1, 2, 3)]
        with pytest.raises(CapacityError, match="free disk space"):
            await store.append(FID, big)
        assert len(await store.events(FID)) == 3
        stored = await store.append(FID, logs(1, 1))
        assert [event.seq for event in stored] == [4]


async def test_a_write_that_needs_more_room_than_there_is_fails_alone(tmp_path: Path) -> None:
    async with Store(tmp_path / "x.db", max_bytes=400_000) as store:
        await store.create(new_run(), FIRST)
        queued = threading.Event()
        first = asyncio.ensure_future(store._write(lambda tx: queued.wait(60)))
        big = asyncio.ensure_future(store._write(lambda tx: tx.append(FID, huge(1, 3), (), None)))
        small = asyncio.ensure_future(store._write(lambda tx: tx.append(FID, logs(1, 1), (), None)))
        await asyncio.sleep(0)
        queued.set()  # until now the thread was busy, so that these two share a transaction
        assert await first
        with pytest.raises(CapacityError, match="free disk space"):
            await big
        await small
        assert [event.seq for event in await store.events(FID)] == [1, 2, 3, 4]


def huge(first: int, last: int) -> list[NewEvent]:
    return [NewEvent.make("log", {"text": "x" * 200_000}, n) for n in range(first, last + 1)]


async def test_the_file_is_private_and_durable(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    reader = sqlite3.connect(store.path)
    assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    reader.close()
    settings = [
        store._writer.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "secure_delete", "foreign_keys")
    ]
    assert settings == [2, 1, 1]


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(UsageError, match="newer kodo"):
        await Store(path).__aenter__()


@pytest.mark.parametrize("content", [b"plain text, no database at all" * 100, None])
async def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.db"
    if content is None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (x)")
        connection.close()
        content = path.read_bytes()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError):
        await Store(path).__aenter__()
    assert path.read_bytes() == content


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db")
    async with store:
        pass
    with pytest.raises(UsageError, match="not open"):
        await store.append(FID, logs(1, 1))
    await store.aclose()


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("no-such-event", {}),
        ("log", {"text": object()}),
        ("log", {"number": 1 << 70}),
        ("log", {"text": "\ud800"}),
        ("log", {"text": "x" * (MAX_EVENT_BYTES + 1)}),
    ],
)
def test_an_event_that_is_unknown_oversized_or_not_plain_is_refused(event: str, data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"event|data"):
        NewEvent.make(event, data)


async def test_nested_progress_is_read_back_as_it_was_followed(store: Store) -> None:
    await store.create(new_run(), FIRST)
    said = [
        {"percent": 10, "id": "all"},
        {"done": 1, "id": "pages", "parent": "all"},
        {"done": 2, "total": 4, "id": "pages", "parent": "all"},
    ]
    await store.append(FID, [NewEvent.make("progress", data, rseq) for rseq, data in enumerate(said, 1)])
    view, row = await store.view(FID), await store.run(FID)
    assert view is not None
    assert row is not None
    assert view.progress == row.progress == said[0]
    assert view.steps == {"all": said[0], "pages": said[2]}


async def test_what_is_stored_with_a_run_is_stored_once_for_a_key(store: Store) -> None:
    also: list[str] = []
    key = OnceKey("ana", "k", fid_of(1), b"digest")
    for number in (1, 2):
        run = new_run(number)
        await store.create(run, FIRST, replace(key, value=run.fid), lambda _, fid: also.append(fid))
    with pytest.raises(KeyReusedError):
        await store.create(new_run(3), FIRST, replace(key, digest=b"other"), lambda _, fid: also.append(fid))
    assert also == [fid_of(1)]
