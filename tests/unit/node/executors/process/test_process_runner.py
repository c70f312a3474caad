"""How a process ended, in words."""

from __future__ import annotations

import pytest

from kodo.node.executors.process.runner import describe_end


@pytest.mark.parametrize(
    ("status", "signal", "text"),
    [
        (7 << 8, None, "the flow's process ended itself with exit code 7, without a word"),
        (0, None, "the flow's process ended itself with exit code 0, without a word"),
        (
            9,
            "SIGKILL",
            "the flow's process was ended by SIGKILL: somebody killed it, or its machine ran out of memory",
        ),
        (15, "SIGTERM", "the flow's process was ended by SIGTERM"),
        (11 | 0x80, "SIGSEGV", "the flow's process was ended by SIGSEGV"),  # with a core dumped
        (34, "SIGRTMIN", "the flow's process was ended by SIGRTMIN"),
        (40, "signal 40", "the flow's process was ended by signal 40"),
    ],
)
def test_a_status_is_told_for_people(status: int, signal: str | None, text: str) -> None:
    assert describe_end(status) == (signal, text)
