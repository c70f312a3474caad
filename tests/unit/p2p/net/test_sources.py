"""What counts as one source, for whatever is bounded by where it comes from."""

from __future__ import annotations

import pytest

from kodo.p2p.net.udp import THIS_MACHINE, source_of


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", THIS_MACHINE),
        ("127.9.9.9", THIS_MACHINE),
        ("::1", THIS_MACHINE),
        ("::ffff:127.0.0.1", THIS_MACHINE),
        ("what:ever", "what:ever"),
        ("", "?"),
        (None, "?"),
    ],
)
def test_a_source_is_an_address_or_what_one_host_has_of_ipv6_or_this_machine(remote: str | None, source: str) -> None:
    assert source_of(remote) == source
