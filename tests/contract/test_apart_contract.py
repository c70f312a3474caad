"""Runners under another account keep an executor's promises; a process that was taken over harms its runs only."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kodo.node.executors.apart.executor import ApartExecutor
from kodo.node.executors.apart.host import RunnerHost
from kodo.node.executors.apart.wire import MAX_FRAME_BYTES, pack_frame, read_frame
from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import Executor, InputFile, RunnerDiedError, RunSpec
from kodo.node.executors.in_process import InProcessExecutor
from kodo.p2p.errors import CapacityError, IntegrityError, KodoError, UsageError
from kodo.protocol.ids import make_id
from tests.contract.test_executor_contract import Bench, ExecutorContract, InProcessBench

SETTINGS: dict[str, Any] = {"runners": 0}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Start another process at once."""
    monkeypatch.setattr("kodo.node.executors.apart.executor.PAUSE_SECONDS", 0.0)


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Two ends of a socket; what is open of them at the end is closed."""
    ends = [await asyncio.open_unix_connection(sock=end) for end in socket.socketpair()]
    try:
        yield ends
    finally:
        for _, writer in ends:
            writer.close()


class ApartBench(InProcessBench):
    """A host and the node's side of it, joined by a socket; the host's executor is the one in process."""

    def __init__(self) -> None:
        self.hosts: list[RunnerHost] = []
        self.behind: list[InProcessExecutor] = []
        self.ends: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with super().open() as executor, pair() as (ours, theirs):
            assert isinstance(executor, InProcessExecutor)
            host = RunnerHost(lambda settings: executor)
            self.hosts.append(host)
            self.behind.append(executor)
            self.ends.append(theirs[1])
            serving = asyncio.create_task(host.serve(*theirs))
            try:
                yield ours
            finally:
                ours[1].close()
                await serving

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Executor]:
        executor = ApartExecutor(self.connect, SETTINGS)
        await executor.start()
        try:
            yield executor
        finally:
            await executor.aclose()


class TestApartExecutor(ExecutorContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return ApartBench()

    async def test_runs_are_over_when_the_process_ends_and_another_one_takes_new_ones(self):
        bench = ApartBench()
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "wait")
            waiting = asyncio.create_task(runner.poll(1, 20.0))
            await self.read(runner, "log")
            bench.ends[0].close()
            with pytest.raises(RunnerDiedError):
                await waiting
            with pytest.raises(RunnerDiedError):
                await runner.asked(0, 1.0)
            await runner.kill()
            again = await self.launch(executor, bench, "hello", 2, name="Ana")
            assert (await self.read(again, "final"))[-1].data["result"] == "hello Ana"
            assert (len(bench.hosts), executor.load().busy) == (2, 1)
            assert bench.hosts[1]._settings["afresh"] is True

    async def test_what_a_dead_runner_had_said_is_told_in_pages(self, monkeypatch):
        bench = ApartBench()
        monkeypatch.setattr("kodo.node.executors.apart.host.SAID_BYTES", 100)
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "count", n=50)
            said = await self.read(runner, "final")
            (behind,) = bench.behind[0].runners.values()

            async def dead(*_: Any) -> Any:
                error = RunnerDiedError("the flow's process was ended by SIGSEGV")
                error.signal, error.stack, error.said = "SIGSEGV", "here", said
                raise error

            behind.poll = dead  # type: ignore[method-assign]
            with pytest.raises(RunnerDiedError, match="SIGSEGV") as caught:
                await runner.poll(0, 1.0)
            assert (caught.value.signal, caught.value.stack) == ("SIGSEGV", "here")
            assert [(event.rseq, event.data) for event in caught.value.said] == [(e.rseq, e.data) for e in said]

    async def test_the_process_is_told_of_other_code_and_its_next_one_begins_with_it(self):
        bench, offered, told = ApartBench(), ["a:f@one"], asyncio.Queue[list[str]]()

        @contextlib.asynccontextmanager
        async def connect() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
            async with bench.connect() as ours:
                host = bench.hosts[-1]
                made = host._make

                def make(settings: Any) -> Executor:
                    told.put_nowait(list(settings["preload"]))
                    executor = made(settings)
                    executor.refresh = lambda: told.put_nowait(list(settings["preload"]))  # type: ignore[method-assign]
                    return executor

                host._make = make
                yield ours

        executor = ApartExecutor(connect, SETTINGS, lambda: offered)
        await executor.start()
        try:
            assert await told.get() == ["a:f@one"]
            offered[:] = ["a:f@two"]
            executor.refresh()
            assert await told.get() == ["a:f@two"]
            bench.ends[0].close()
            assert await told.get() == ["a:f@two"]
        finally:
            await executor.aclose()

    @pytest.mark.parametrize("kind", [CapacityError, IntegrityError, MisconductError, UsageError, KodoError])
    async def test_errors_are_the_same_on_both_sides(self, kind):
        bench = ApartBench()
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "wait")
            (behind,) = bench.behind[0].runners.values()

            async def fails(*_: Any) -> bytes:
                raise kind("no room")

            behind.read_output = fails  # type: ignore[method-assign]
            with pytest.raises(KodoError, match="no room") as caught:
                await runner.read_output("a", 0, 1)
            assert type(caught.value) is kind

    async def test_a_launch_that_the_node_calls_off_begins_nothing_and_says_why(self):
        bench = ApartBench()
        async with bench.open() as executor:

            async def refuse() -> None:
                raise CapacityError("the disk is full")

            spec = RunSpec(make_id(1, bytes(10)), "flows.hello", "hello", {"name": "Ana"})
            with pytest.raises(CapacityError, match="the disk is full"):
                await executor.launch(spec, refuse)
            assert bench.behind[0].launched == []
            assert executor.load().busy == 0

    async def test_a_launch_that_was_given_up_leaves_no_run(self):
        bench = ApartBench()
        async with bench.open() as executor:
            begun, go = asyncio.Event(), asyncio.Event()

            async def hold() -> None:
                begun.set()
                await go.wait()

            spec = RunSpec(make_id(1, bytes(10)), "flows.wait", "wait", {})
            launching = asyncio.create_task(executor.launch(spec, hold))
            await begun.wait()
            launching.cancel()
            await asyncio.gather(launching, return_exceptions=True)
            await executor.spare(1.0)  # what was said before has been heard
            assert executor.load().busy == 0
            assert [r for r in bench.behind[0].runners.values() if r.task is not None and not r.task.done()] == []

    async def test_files_are_read_by_the_node_and_nothing_but_those_of_the_launch(self, tmp_path: Path):
        bench = ApartBench()
        content = bytes(i % 251 for i in range(5_000_000))
        (tmp_path / "data").write_bytes(content)
        got: list[bytes] = []

        async def read_all(spec: RunSpec, begin: Any = None) -> Any:
            (file,) = spec.files
            assert file.read is not None
            while len(b"".join(got)) < file.size:
                got.append(await file.read(len(b"".join(got)), 4 << 20))
            for wrong in [(-1, 10), (0, 1 << 30), (0, -1)]:
                with pytest.raises(KodoError):
                    await file.read(*wrong)
            return await InProcessExecutor.launch(bench.behind[0], spec, begin)

        async with bench.open() as executor:
            bench.behind[0].launch = read_all  # type: ignore[method-assign]
            file = InputFile("upload-1", "data", tmp_path / "data", len(content), hashlib.sha256(content).hexdigest())
            gone = InputFile("upload-2", "gone", tmp_path / "gone", 3, "")
            spec = RunSpec(make_id(1, bytes(10)), "flows.hello", "hello", {"name": "Ana"}, files=(file,))
            with pytest.raises(KodoError):  # of the wrong pieces, which a host of ours never asks for
                await executor.launch(spec)
            assert b"".join(got) == content
            got.clear()
            with pytest.raises(IntegrityError, match="'gone' is gone"):
                await executor.launch(RunSpec(make_id(2, bytes(10)), "flows.hello", "hello", {}, files=(gone,)))


class Impostor:
    """A process that was taken over: starts as it should, then answers each call with what `says` makes of it."""

    def __init__(self, says: Callable[[int, str, Any], bytes]):
        self.says = says
        self.opened = 0

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with pair() as (ours, theirs):
            self.opened += 1
            serving = asyncio.create_task(self.serve(*theirs))
            try:
                yield ours
            finally:
                ours[1].close()
                await asyncio.gather(serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(KodoError, OSError):
            while True:
                number, op, args = await read_frame(reader)
                if op in ("start", "close"):
                    writer.write(pack_frame([number, "done", None]))
                elif op == "load" and args[0] is None:
                    writer.write(pack_frame([number, "done", [1, 0, 0]]))
                elif op not in ("load", "cancel", "told"):
                    writer.write(self.says(number, op, args))
        writer.close()


def launched(number: int, fid: str = make_id(1, bytes(10))) -> bytes:
    return pack_frame([number, "done", ["1", fid, True, False]])


HOSTILE: dict[str, Callable[[int, str, Any], bytes]] = {
    "no frame": lambda number, op, args: b"\x00\x00\x00\x02\xc1\xc1",
    "a frame that is too long": lambda number, op, args: (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
    "a frame of too many values": lambda number, op, args: (9 << 20).to_bytes(4, "big") + b"\x90" * (9 << 20),
    "a frame that is nested without end": lambda number, op, args: (4000).to_bytes(4, "big") + b"\x91" * 4000,
    "an answer that nobody asked for": lambda number, op, args: pack_frame([number + 1000, "done", None]),
    "an answer twice": lambda number, op, args: launched(number) * 2,
    "a question in a call that has none": lambda number, op, args: pack_frame([number, "ask", ["begin", []]]),
    "an error that is none": lambda number, op, args: pack_frame([number, "error", {"a": 1}]),
    "an error of a kind that is none": lambda number, op, args: pack_frame([number, "error", ["bomb", "", {}]]),
    "facts that are none": lambda number, op, args: pack_frame([number, "error", ["died", "", 5]]),
    "a kind that is none": lambda number, op, args: pack_frame([number, "boom", None]),
    "a number": lambda number, op, args: pack_frame([number, "done", 5]),
    "nothing": lambda number, op, args: pack_frame([number, "done", None]),
    "a map": lambda number, op, args: pack_frame([number, "done", {"a": [1]}]),
    "texts": lambda number, op, args: pack_frame([number, "done", ["a", "b"]]),
    "events that are none": lambda number, op, args: pack_frame([number, "done", [[[1, "log", "x"]], False]]),
    "events that are no msgpack": lambda number, op, args: pack_frame([number, "done", [[[1, "log", b"\xc1"]], 0]]),
    "a code of msgpack's": lambda number, op, args: pack_frame([number, "done", msgpack.ExtType(5, b"x")]),
}


@pytest.mark.parametrize("says", HOSTILE.values(), ids=HOSTILE)
async def test_what_a_process_that_was_taken_over_says_raises_what_a_node_expects_of_a_runner(says):
    impostor = Impostor(lambda number, op, args: launched(number) if op == "launch" else says(number, op, args))
    executor = ApartExecutor(impostor.connect, SETTINGS)
    await executor.start()
    try:
        for call in ("poll", "asked", "read_output", "answer", "kill", "adopt", "spare", "logs"):
            spec = RunSpec(make_id(1, bytes(10)), "flows.x", "x", {})
            try:
                runner = await executor.launch(spec)
                if call == "poll":
                    assert all(isinstance(event.data, dict) for event in await runner.poll(0, 1.0))
                elif call == "asked":
                    await runner.asked(0, 1.0)
                elif call == "read_output":
                    await runner.read_output("a", 0, 1)
                elif call == "answer":
                    await runner.answer("l", "c", 1)
                elif call == "kill":
                    await runner.kill()
                elif call == "logs":
                    await executor.logs(1)
                else:
                    await (executor.adopt() if call == "adopt" else executor.spare(1.0))
            except KodoError:
                pass
    finally:
        await executor.aclose()


@pytest.mark.parametrize("says", HOSTILE.values(), ids=HOSTILE)
async def test_a_launch_of_a_process_that_was_taken_over_fails_as_one(says):
    begun = []

    async def begin() -> None:
        begun.append(1)

    executor = ApartExecutor(Impostor(says).connect, SETTINGS)
    await executor.start()
    try:
        with contextlib.suppress(KodoError, TimeoutError):
            async with asyncio.timeout(1):  # one that asks, and says nothing more, is the caller's to give up
                runner = await executor.launch(RunSpec(make_id(1, bytes(10)), "flows.x", "x", {}), begin)
                assert runner.fid == make_id(1, bytes(10))
    finally:
        await executor.aclose()


async def test_a_run_begins_once_whatever_the_process_asks():
    begun = []

    async def begin() -> None:
        begun.append(1)

    class Again(Impostor):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = 0
            with contextlib.suppress(KodoError, OSError):
                while True:
                    number, op, _ = await read_frame(reader)
                    if op == "launch" or (op == "told" and asked < 2):
                        asked += 1
                        writer.write(pack_frame([number, "ask", ["begin", []]]))
                    elif op == "told":
                        writer.write(launched(number))
                    elif op not in ("load", "cancel"):
                        writer.write(pack_frame([number, "done", None]))
            writer.close()

    executor = ApartExecutor(Again(lambda *_: b"").connect, SETTINGS)
    await executor.start()
    try:
        with pytest.raises(MisconductError, match="begun twice"):
            await executor.launch(RunSpec(make_id(1, bytes(10)), "flows.x", "x", {}), begin)
        assert begun == [1]
    finally:
        await executor.aclose()


async def test_a_runner_with_another_run_than_it_was_given_is_ended():
    ops = []

    def says(number: int, op: str, args: Any) -> bytes:
        ops.append(op)
        return launched(number, "other")

    executor = ApartExecutor(Impostor(says).connect, SETTINGS)
    await executor.start()
    try:
        with pytest.raises(MisconductError):
            await executor.launch(RunSpec(make_id(1, bytes(10)), "flows.x", "x", {}))
        assert ops == ["launch", "kill"]
    finally:
        await executor.aclose()


async def test_a_process_that_does_not_start_is_the_error_of_the_start():
    @contextlib.asynccontextmanager
    async def connect():
        async with pair() as (ours, theirs):
            theirs[1].close()
            yield ours

    executor = ApartExecutor(connect, SETTINGS)
    with pytest.raises(KodoError, match="ended when it started"):
        await executor.start()
    await executor.aclose()
