import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.flow import memory
from kodo.flow._runtime import current as context
from kodo.flow._runtime.console import ConsoleContext
from kodo.p2p.errors import CapacityError, NotFoundError, UsageError


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process without a node, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    made = ConsoleContext()
    context.install(made)
    yield
    made.forget()
    context.install(None)


def test_a_flow_that_runs_alone_remembers_while_its_process_lives() -> None:
    assert memory.short.get("k") is None
    assert memory.short.get("k", 3) == 3
    memory.short.set("k", {"a": [1, 2.5, None, True]})
    memory.short.set("other", None)
    assert memory.short.get("k") == {"a": [1, 2.5, None, True]}
    assert memory.short.keys() == ["k", "other"]
    assert memory.short.keys("o") == ["other"]
    assert memory.long.keys() == memory.shared("kb").keys() == []
    assert [memory.short.delete("k"), memory.short.delete("k")] == [True, False]


async def test_in_an_async_flow_it_is_awaited() -> None:
    await memory.long.set("k", 1)
    assert await memory.long.update("k", lambda value: value + 1) == 2
    assert await memory.long.get("k") == 2
    await memory.long.files.write("a/b.txt", "text")
    assert await memory.long.files.read("a/b.txt") == b"text"


def test_what_json_cannot_hold_becomes_what_it_can(tmp_path: Path) -> None:
    assert memory.short.set("k", (tmp_path, {1: {2}})) == [str(tmp_path), {"1": [2]}]
    assert memory.short.get("k") == [str(tmp_path), {"1": [2]}]


def test_updates_by_many_at_once_are_all_counted() -> None:
    def count() -> None:
        for _ in range(20):
            memory.long.update("n", lambda value: value + 1, 0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.long.get("n") == 80


def test_a_failing_change_leaves_the_value() -> None:
    memory.long.set("n", 1)
    with pytest.raises(ZeroDivisionError):
        memory.long.update("n", lambda value: value / 0)
    assert memory.long.get("n") == 1


def test_more_keys_than_one_page_are_all_given() -> None:
    for number in range(1005):
        memory.short.set(f"k{number:04}", number)
    assert memory.short.keys("k") == [f"k{number:04}" for number in range(1005)]


def test_files_are_written_read_fetched_listed_and_deleted(tmp_path: Path) -> None:
    big = bytes(range(256)) * 10_000
    kept = memory.shared("kb").files
    told = kept.write("docs/big.bin", big)
    assert (told["size"], kept.read("docs/big.bin") == big) == (len(big), True)
    assert kept.fetch("docs/big.bin").read_bytes() == big
    assert kept.fetch("docs/big.bin", tmp_path / "x").read_bytes() == big
    kept.write("docs/big.bin", b"")
    kept.write("other", [b"in ", "pieces"])
    assert [(row["name"], row["size"]) for row in kept.list()] == [("docs/big.bin", 0), ("other", 9)]
    assert [row["name"] for row in kept.list("o")] == ["other"]
    assert [kept.delete("other"), kept.delete("other")] == [True, False]
    with pytest.raises(NotFoundError, match="other"):
        kept.read("other")


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 513, "\x00", 3])
def test_a_bad_key_is_refused(key: Any) -> None:
    with pytest.raises(UsageError):
        memory.short.set(key, 1)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a\0b", "x" * 600])
def test_a_bad_file_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        memory.short.files.write(name, b"")


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 129, "a b"])
def test_a_bad_shared_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        memory.shared(name)


def test_a_value_above_its_bound_says_to_store_a_file() -> None:
    with pytest.raises(CapacityError, match=r"files\.write"):
        memory.short.set("k", "x" * (1 << 20))
    assert memory.short.keys() == []


async def test_many_at_once_in_one_loop() -> None:
    await asyncio.gather(*(memory.short.update("n", lambda value: value + 1, 0) for _ in range(30)))
    assert await memory.short.get("n") == 30
