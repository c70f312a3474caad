"""Whom a reverse proxy speaks for."""

from __future__ import annotations

import pytest

from kodo.registry.http.forwarded import told_address


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("10.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("192.0.2.1, ", None),
        ("192.0.2.1, unknown", None),
        ("", None),
    ],
)
def test_the_last_address_counts_which_the_proxy_itself_added(header: str, address: str | None) -> None:
    assert told_address(header) == address
