"""Which addresses are this machine, which are near, and what counts as one source."""

from __future__ import annotations

import pytest

from kodo.p2p.core.hosts import THIS_MACHINE, is_local, is_own_host, may_be_sent_to, source_of


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


@pytest.mark.parametrize(
    ("host", "own", "local"),
    [
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("::1", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("localhost", True, False),
        ("10.0.0.1", False, True),
        ("192.168.1.7", False, True),
        ("fe80::1%eth0", False, True),
        ("fd00::1", False, True),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("8.8.8.8", False, False),
        ("2a00::1", False, False),
        ("::ffff:8.8.8.8", False, False),
        ("localhost.example", False, False),
        ("", False, False),
    ],
)
def test_a_host_is_this_machine_or_near_or_neither(host: str, own: bool, local: bool) -> None:
    assert (is_own_host(host), is_local(host)) == (own, local)


@pytest.mark.parametrize(
    ("host", "port", "because_of", "may"),
    [
        ("8.8.4.4", 5000, "8.8.8.8", True),
        ("2001:4860::1", 5000, "8.8.8.8", True),
        ("8.8.4.4", 53, "8.8.8.8", False),
        ("127.0.0.1", 5000, "127.0.0.1", False),
        ("::ffff:127.0.0.1", 5000, "127.0.0.1", False),
        ("169.254.1.1", 5000, "10.0.0.1", False),
        ("fe80::1", 5000, "10.0.0.1", False),
        ("224.0.0.251", 5353, "8.8.8.8", False),
        ("255.255.255.255", 5000, "10.0.0.1", False),
        ("0.0.0.0", 5000, "10.0.0.1", False),
        ("10.0.0.5", 5000, "8.8.8.8", False),
        ("fd00::5", 5000, "8.8.8.8", False),
        ("10.0.0.5", 5000, "10.0.0.1", True),
        # Shared by the customers of a provider.
        ("100.64.3.4", 5000, "8.8.8.8", False),
        ("100.64.3.4", 5000, "100.64.0.1", True),
        ("100.64.3.4", 5000, "10.0.0.1", True),
        ("10.0.0.5", 5000, "100.64.0.1", False),
        # IPv4 within IPv6: mapped, NAT64, 6to4, compatible.
        ("::ffff:10.0.0.1", 5000, "8.8.8.8", False),
        ("64:ff9b::10.0.0.1", 5000, "8.8.8.8", False),
        ("64:ff9b::127.0.0.1", 5000, "10.0.0.1", False),
        ("64:ff9b::100.64.3.4", 5000, "8.8.8.8", False),
        ("64:ff9b::8.8.4.4", 5000, "8.8.8.8", True),
        ("64:ff9b:1::1", 5000, "8.8.8.8", False),
        ("2002:a00:1::1", 5000, "8.8.8.8", False),
        ("2002:7f00:1::1", 5000, "10.0.0.1", False),
        ("2002:808:404::1", 5000, "8.8.8.8", True),
        ("::10.0.0.1", 5000, "8.8.8.8", False),
        ("::8.8.4.4", 5000, "8.8.8.8", False),
        # Nobody's.
        ("fec0::1", 5000, "10.0.0.1", False),
        ("ff02::1", 5000, "10.0.0.1", False),
        ("::1", 5000, "10.0.0.1", False),
        ("::", 5000, "10.0.0.1", False),
        ("192.0.0.8", 5000, "8.8.8.8", False),
        ("192.0.0.9", 5000, "8.8.8.8", False),
        ("192.88.99.1", 5000, "8.8.8.8", False),
        ("240.0.0.1", 5000, "10.0.0.1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", 5000, "8.8.8.8", False),
    ],
)
def test_nobody_has_packets_sent_where_none_should_go(host: str, port: int, because_of: str, may: bool) -> None:
    assert may_be_sent_to(host, port, because_of=because_of) is may
