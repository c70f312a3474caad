"""Numbers that msgpack can carry and SQLite cannot keep."""

from __future__ import annotations

from typing import Any

import pytest

from kodo.p2p.errors import CallError
from kodo.protocol.calls import parse_args

FID = "0" * 26


@pytest.mark.parametrize(
    ("op", "args", "bad"),
    [("run.list", {}, "since"), ("run.stream", {"fid": FID}, "after"), ("run.list", {}, "p")],
)
@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 1, -1])
def test_they_are_refused_by_name(op: str, args: dict[str, Any], bad: str, value: int) -> None:
    with pytest.raises(CallError) as refused:
        parse_args(op, {**args, bad: value})
    assert (refused.value.code, refused.value.reason, refused.value.data) == (400, "bad-args", {"arg": bad})


def test_the_largest_that_fits_is_taken() -> None:
    parse_args("run.list", {"since": (1 << 63) - 1})
    parse_args("run.stream", {"fid": FID, "after": (1 << 63) - 1})
