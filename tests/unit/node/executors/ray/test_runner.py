"""What a runner's process answers may be anything: it is data, or misconduct."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.ray.runner import RayRunner

pytest.importorskip("ray")

ODD: list[Any] = [None, 5, "text", [], {}, b"", b"\xc1", b"\x00", msgpack.packb([1]), msgpack.packb([1, 5])]
ODD += [msgpack.packb([1, [["a", "b", {}]]]), msgpack.packb(["x", []]), b"\x91" * 2000]


def runner_that_says(answer: Any) -> RayRunner:
    async def ask(*args: Any) -> Any:
        return answer

    return RayRunner(SimpleNamespace(), SimpleNamespace(ask=ask, lost=False), "runner-1", None, "fid")  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ODD, ids=lambda answer: repr(answer)[:20])
@pytest.mark.parametrize("question", ["poll", "asked", "read_output"])
async def test_an_odd_answer_is_misconduct(question: str, answer: Any) -> None:
    if question == "read_output" and isinstance(answer, bytes):
        return  # those may be any
    runner = runner_that_says(answer)
    asking = {
        "poll": lambda: runner.poll(0, 1.0),
        "asked": lambda: runner.asked(0, 1.0),
        "read_output": lambda: runner.read_output("a.txt", 0, 5),
    }
    with pytest.raises(MisconductError):
        await asking[question]()
