"""Addresses of outputs."""

from __future__ import annotations

import pytest

from kodo.mcp.resources import parse_uri
from kodo.p2p.errors import UsageError


@pytest.mark.parametrize(
    "uri", ["", "kodo://", "kodo://p/not-an-id/x", "file:///etc/passwd", "kodo://p/01arz3ndektsv4rrffq69g5fav/"]
)
def test_what_is_no_output_has_no_run(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_uri(uri)
