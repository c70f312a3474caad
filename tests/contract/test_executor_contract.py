"""What every executor must do, held against the one in process; those of processes and on Ray subclass the suite.

A bench opens an executor whose scope has these flows (`Bench.entry` gives the entry of each):

* `hello`: gives "hello " + its input `name`
* `count`: makes `log` events with `number` 0, 1, 2 … below its input `n`
* `wait`: makes one `log` event, then does nothing for ever
* `fail`: raises a `ValueError("broken on purpose")`
* `write`: makes the output `data.bin` of 100,000 bytes, byte i being i % 251
* `ask`: opens a lock for an integer, denies what is odd, gives what is even; default 0
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from kodo.flow._runtime.kept_code import pack_code
from kodo.node.executors.executor import Executor, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner, LockDeniedError
from kodo.protocol.ids import make_id

LID = make_id(1, bytes(10))


class Bench(Protocol):
    """One kind of executor under test.

    Attributes:
        preload: entries of flows for which runners are made ready; may be changed.
    """

    preload: list[str]

    def entry(self, name: str) -> str:
        """Give the `RunSpec.entry` of a flow."""
        ...

    def open(self) -> AbstractAsyncContextManager[Executor]:
        """Open a started executor; whatever it started ends with the block."""
        ...


class ExecutorContract:
    """The suite. A subclass gives the fixture `bench`."""

    async def launch(self, executor: Executor, bench: Bench, flow: str, number: int = 1, /, **inputs: Any) -> Runner:
        spec = RunSpec(make_id(number, bytes(10)), f"flows.{flow}", bench.entry(flow), inputs)
        return await executor.launch(spec)

    async def read(self, runner: Runner, until: str, after: int = 0) -> list[RunnerEvent]:
        """Poll until an event of this name, or the run's end, came."""
        found: list[RunnerEvent] = []
        while not any(event.event in (until, "final", "fatal") for event in found):
            found += await runner.poll(found[-1].rseq if found else after, 20.0)
        return found

    async def test_a_flow_gets_its_inputs_and_gives_its_result(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "hello", name="Ana")
            assert runner.fid == make_id(1, bytes(10))
            events = await self.read(runner, "final")
            assert (events[-1].event, events[-1].data["result"]) == ("final", "hello Ana")
            assert isinstance(events[-1].data["runtime_s"], float)
            await runner.release()

    async def test_events_are_numbered_from_one_without_gaps(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "count", n=2000)
            events = await self.read(runner, "final")
            assert [event.rseq for event in events] == list(range(1, len(events) + 1))
            assert [event.data["number"] for event in events if event.event == "log"] == list(range(2000))

    async def test_what_is_not_committed_is_given_again(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "count", n=100)
            first = await self.read(runner, "log")
            assert first[-1].event in ("log", "final")
            again = await runner.poll(0, 20.0)
            assert again[: len(first)] == first
            rest = await self.read(runner, "final", after=50)
            assert rest[0].rseq == 51

    async def test_a_poll_without_news_ends_in_time_with_nothing(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "wait")
            events = await self.read(runner, "log")
            assert await runner.poll(events[-1].rseq, 0.05) == []
            await runner.kill()

    async def test_a_cancelled_poll_loses_nothing(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "count", n=10)
            poll = asyncio.create_task(runner.poll(0, 20.0))
            await asyncio.sleep(0)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            assert (await self.read(runner, "final"))[0].rseq == 1

    async def test_an_exception_is_fatal_with_type_and_message(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "fail")
            (fatal,) = [event for event in await self.read(runner, "fatal") if event.event == "fatal"]
            assert (fatal.data["type"], fatal.data["message"]) == ("ValueError", "broken on purpose")

    async def test_a_killed_runner_is_dead_and_killing_it_again_is_no_error(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "wait")
            events = await self.read(runner, "log")
            waiting = asyncio.create_task(runner.poll(events[-1].rseq, 20.0))
            await asyncio.sleep(0)
            await runner.kill()
            with pytest.raises(RunnerDiedError):
                await waiting
            with pytest.raises(RunnerDiedError):
                await runner.poll(0, 1.0)
            await runner.kill()

    async def test_an_output_can_be_read_in_pieces(self, bench: Bench) -> None:
        expected = bytes(i % 251 for i in range(100_000))
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "write")
            (said,) = [event for event in await self.read(runner, "final") if event.event == "output"]
            assert (said.data["name"], said.data["size"]) == ("data.bin", 100_000)
            content = b""
            while piece := await runner.read_output("data.bin", len(content), 30_000):
                content += piece
            assert content == expected
            assert await runner.read_output("data.bin", 99_990, 100) == expected[-10:]
            await runner.release()

    async def test_a_lock_denies_then_takes_an_answer(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "ask")
            events = await self.read(runner, "lock")
            lid = events[-1].data["lid"]
            await runner.answer(lid, "c1", 3)
            events += await self.read(runner, "unlock-deny", events[-1].rseq)
            assert (events[-1].data["lid"], events[-1].data["cid"]) == (lid, "c1")
            assert events[-1].data["reasons"]
            await runner.answer(lid, "c2", 4)
            events += await self.read(runner, "final", events[-1].rseq)
            (unlock,) = [event for event in events if event.event == "unlock"]
            assert (unlock.data["cid"], unlock.data["answer"]) == ("c2", 4)
            assert events[-1].data["result"] == 4

    async def test_an_answer_that_comes_twice_is_judged_once(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "ask")
            events = await self.read(runner, "lock")
            lid = events[-1].data["lid"]
            for _ in range(3):
                await runner.answer(lid, "c1", 3)
            await runner.answer(lid, "c2", 4)
            events += await self.read(runner, "final", events[-1].rseq)
            assert len([event for event in events if event.event == "unlock-deny"]) == 1

    async def test_an_expired_lock_takes_its_default(self, bench: Bench) -> None:
        async with bench.open() as executor:
            runner = await self.launch(executor, bench, "ask")
            events = await self.read(runner, "lock")
            await runner.expire(events[-1].data["lid"])
            await runner.expire(events[-1].data["lid"])
            events += await self.read(runner, "final", events[-1].rseq)
            assert (events[-1].event, events[-1].data["result"]) == ("final", 0)

    async def test_busy_runners_are_counted(self, bench: Bench) -> None:
        async with bench.open() as executor:
            before = executor.load().busy
            runner = await self.launch(executor, bench, "wait")
            await self.read(runner, "log")
            assert executor.load().busy == before + 1
            await runner.kill()

    async def test_closing_twice_is_no_error(self, bench: Bench) -> None:
        async with bench.open() as executor:
            await executor.aclose()
            await executor.aclose()


class ProcessContract(ExecutorContract):
    """What holds of executors whose runners are processes, besides."""

    async def see(
        self, executor: Executor, module: str, number: int, code: str = ""
    ) -> tuple[dict[str, Any], list[str]]:
        """Run a flow that tells what it sees; return that, and the events of the run."""
        spec = RunSpec(make_id(number, bytes(10)), f"{module}.seen", f"{module}:seen", {}, code=code)
        runner = await executor.launch(spec)
        events = await self.read(runner, "final")
        await runner.release()
        assert events[-1].event == "final", events[-1].data
        return events[-1].data["result"], [event.event for event in events]

    async def test_a_run_sees_what_a_fresh_process_does_that_has_imported_its_flow_alone(self, bench: Bench) -> None:
        modules = ["contract_noisy", "contract_quiet"]
        async with bench.open() as executor:
            executor.scale(0)
            fresh = [await self.see(executor, module, number) for number, module in enumerate(modules, 1)]
            bench.preload[:] = [f"{module}:seen" for module in modules]
            try:
                executor.scale(1)
                while executor.load().free < len(modules):  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(0.05)
                warm = [await self.see(executor, module, number) for number, module in enumerate(modules, 3)]
            finally:
                bench.preload.clear()
                executor.scale(1)
        assert warm == fresh
        (noisy, noise), (quiet, said) = warm
        # Nothing of its import, and one event of the file that it left in its own folder.
        assert noise == ["log", "final"]
        assert said == ["stdout", "final"]
        assert noisy["environment"]["CONTRACT_NOISE"] == "1"
        assert "CONTRACT_NOISE" not in quiet["environment"]
        assert "contract_noisy" not in quiet["modules"]
        assert (noisy["prompt"], quiet["prompt"]) == ("Be kind.", "Be kind.")
        assert (noisy["works in"], quiet["works in"]) == ("work", "work")

    async def test_a_breakpoint_without_a_terminal_is_skipped_and_told(self, bench: Bench) -> None:
        async with bench.open() as executor:
            events = await self.read(await self.launch(executor, bench, "stops"), "final")
            [log] = [event for event in events if event.event == "log"]
            assert log.data["text"].startswith("breakpoint() at contract_flows.py:")
            assert events[-1].event == "final"

    async def test_a_run_takes_the_code_that_was_kept_for_it(self, bench: Bench, tmp_path: Path) -> None:
        source = Path(__file__).parent / "scope" / "contract_quiet.py"
        text = source.read_text()
        codes = []
        for name in ("first", "second"):
            kept = tmp_path / name
            data = text.replace("file.read()", repr(name)).encode()
            kept.write_bytes(pack_code({str(source): (1, len(data))}, {str(source): data}))
            codes.append(str(kept))
        async with bench.open() as executor:
            executor.scale(0)
            cold = [await self.see(executor, "contract_quiet", number, code) for number, code in enumerate(codes, 1)]
            bench.preload[:] = [f"contract_quiet:seen@{codes[0]}"]
            try:
                executor.scale(1)
                while executor.load().free < 1:  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(0.05)
                bench.preload[:] = [f"contract_quiet:seen@{codes[1]}"]
                executor.refresh()  # what has imported other code is of no use any more
                while executor.load().free < 1:  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(0.05)
                warm = [
                    await self.see(executor, "contract_quiet", number, code) for number, code in enumerate(codes, 3)
                ]
            finally:
                bench.preload.clear()
                executor.scale(1)
        assert [seen["prompt"] for seen, _ in cold] == ["first", "second"]
        assert [seen["prompt"] for seen, _ in warm] == ["first", "second"]


async def _hello(run: InProcessRunner) -> str:
    return f"hello {run.spec.inputs['name']}"


async def _count(run: InProcessRunner) -> None:
    for number in range(run.spec.inputs["n"]):
        run.emit("log", {"number": number})


async def _wait(run: InProcessRunner) -> None:
    run.emit("log", {"number": 0})
    await asyncio.get_running_loop().create_future()


async def _fail(run: InProcessRunner) -> None:
    raise ValueError("broken on purpose")


async def _write(run: InProcessRunner) -> None:
    run.output("data.bin", bytes(i % 251 for i in range(100_000)))


async def _ask(run: InProcessRunner) -> Any:
    def judge(candidate: int) -> int:
        if candidate % 2:
            raise LockDeniedError("odd")
        return candidate

    return await run.lock(LID, {"type": "integer"}, judge=judge, default=0)


class InProcessBench:
    """The executor of the unit tests."""

    def __init__(self) -> None:
        self.preload: list[str] = []

    def entry(self, name: str) -> str:
        return name

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Executor]:
        flows = {"hello": _hello, "count": _count, "wait": _wait, "fail": _fail, "write": _write, "ask": _ask}
        async with InProcessExecutor(flows) as executor:
            await executor.start()
            yield executor


class TestInProcessExecutor(ExecutorContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return InProcessBench()

    async def test_runners_that_live_are_adopted_and_ended_ones_are_not(self, bench: Bench) -> None:
        async with bench.open() as executor:
            living = await self.launch(executor, bench, "wait", 1)
            killed = await self.launch(executor, bench, "wait", 2)
            released = await self.launch(executor, bench, "wait", 3)
            await killed.kill()
            await released.release()
            assert [runner.fid for runner in await executor.adopt()] == [living.fid]
