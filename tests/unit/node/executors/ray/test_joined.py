"""A cluster that was joined: who waits for a machine, how long, and which machine is told of."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.ray.joined import TOLD_WITHIN_S, JoinedCluster
from kodo.node.executors.ray.machines import KNOCK_SECONDS, Machine
from kodo.node.executors.ray.on_machine import versions
from kodo.p2p.errors import DeadlineError, UsageError
from tests.support.virtual_time import run_virtual


def cluster(home: Path, wait_s: float = 0.0, kind: type[JoinedCluster] = JoinedCluster) -> JoinedCluster:
    made = kind(home, "192.0.2.1:6379", [], list, [], wait_s)
    made._machines.update([Machine("a", "head", "192.0.2.1", 1, {"CPU": 4})])
    return made


@pytest.mark.parametrize(("wait_s", "said"), [(0.0, r"is 0\)$"), (600.0, r"is 0\) after 600 s$")])
def test_what_no_machine_has_is_refused_at_once_or_after_the_time_that_was_chosen(
    tmp_path: Path, wait_s: float, said: str
) -> None:
    async def ask() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(UsageError, match=f"no machine of the Ray cluster has 1 GPU .*{said}"):
            await cluster(tmp_path, wait_s).check({"GPU": 1})
        return loop.time() - began

    assert run_virtual(ask()) == pytest.approx(wait_s, abs=1)


def test_a_run_goes_on_once_a_machine_has_come_that_has_what_it_asks_for(tmp_path: Path) -> None:
    async def ask() -> float:
        loop = asyncio.get_running_loop()
        began, joined = loop.time(), cluster(tmp_path, 600)
        loop.call_later(30, joined._machines.update, [Machine("b", "gpu", "192.0.2.2", 1, {"GPU": 1})])
        await joined.check({"GPU": 1})
        return loop.time() - began

    assert run_virtual(ask()) == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({**versions(), "python": "3.99.1"}, "gpu-3 .* has Python 3.99.1 and kodo .*: install the same"),
        ({**versions(), "kodo": "9.9"}, "gpu-3 .* has Python .* and kodo 9.9, this node Python"),
        ("nonsense", "gpu-3 .* has Python None and kodo None"),
        (DeadlineError("it started no process for kodo"), "gpu-3 .* cannot run flows: it started no process"),
        (versions(), ""),
    ],
)
async def test_a_machine_with_another_python_or_kodo_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unused_tcp_port: int, told: Any, said: str
) -> None:
    class Elsewhere(JoinedCluster):
        async def _do(self, *_: Any) -> Any:
            if isinstance(told, Exception):
                raise told
            return told

    link: Any = None
    with caplog.at_level(logging.WARNING):
        await cluster(tmp_path, kind=Elsewhere)._look_at(
            link, Machine("c", "gpu-3", "127.0.0.1", unused_tcp_port, {})
        )
    if said:
        assert caplog.text.count("gpu-3") == 1
        assert re.search(said, caplog.text)
    else:
        assert caplog.text == ""


class SilentHead:
    """A connection to a head that takes all the time that it has, and says nothing; keeps which runners it lost."""

    lost = False

    def __init__(self) -> None:
        self.losses: dict[str, str] = {}
        self.told = asyncio.Event()

    async def block(self, work: Any, timeout: float, words: str) -> Any:
        await asyncio.sleep(timeout)
        raise DeadlineError(words)

    def lose_one(self, name: str, why: str) -> None:
        self.losses[name] = why
        self.told.set()

    def kill(self, handle: Any) -> None:
        pass


@dataclass
class Placed:
    name: str
    machine: str | None
    handle: Any = None


@pytest.mark.parametrize("silent_at", [each / 4 for each in range(13, 44)])
def test_a_silent_machine_is_told_of_within_20_s_whenever_it_fell_silent_and_whatever_the_head_does(
    tmp_path: Path, silent_at: float
) -> None:
    async def lose() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def knock(machines: Iterable[Machine]) -> dict[str, bool]:
            answers = {each.id: each.id == "a" or loop.time() - began < silent_at for each in machines}
            if not all(answers.values()):
                await asyncio.sleep(KNOCK_SECONDS)
            return answers

        joined = JoinedCluster(tmp_path, "192.0.2.1:6379", [], list, [], knock=knock)
        joined._machines.update([Machine(each, each, f"192.0.2.{each}", 1, {}) for each in ("a", "b")])
        runners, link, dropped = [Placed("1", "a"), Placed("2", "b")], SilentHead(), []
        given: Any = link
        watching = asyncio.create_task(joined.watch(lambda: given, lambda: runners, dropped.append, lambda: None))
        await asyncio.wait_for(link.told.wait(), 600)
        assert dropped == ["2"]
        assert link.losses == {"2": "the machine b (192.0.2.b), which ran the flow, does not answer any more"}
        watching.cancel()
        return loop.time() - began - silent_at

    assert run_virtual(lose()) <= TOLD_WITHIN_S <= 20
