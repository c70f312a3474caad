"""The kind of NAT, from what servers see."""

from __future__ import annotations

import pytest

from kodo.p2p.core.nat import NatKind, Seen, nat_kind

ONE, ONE_TOO, OTHER = ("192.0.2.10", 3478), ("192.0.2.10", 3479), ("192.0.2.11", 3478)
OWN = {"198.51.100.7", "192.168.1.2", "8.8.4.4", "127.0.0.1"}
OUTSIDE, PORT = "100.64.1.2", 4711


def seen(*mapped: tuple[str, int] | None) -> list[Seen]:
    return [Seen(server, each) for server, each in zip((ONE, ONE_TOO, OTHER), mapped, strict=False)]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (seen(("8.8.4.4", PORT)), NatKind.OPEN),
        (seen(("8.8.4.4", PORT), None, ("8.8.4.4", PORT)), NatKind.OPEN),
        (seen((OUTSIDE, PORT), (OUTSIDE, PORT), (OUTSIDE, PORT)), NatKind.ENDPOINT_INDEPENDENT),
        (seen((OUTSIDE, PORT), None, (OUTSIDE, PORT)), NatKind.ENDPOINT_INDEPENDENT),
        (seen((OUTSIDE, PORT), (OUTSIDE, PORT), (OUTSIDE, 9)), NatKind.ADDRESS_DEPENDENT),
        (seen((OUTSIDE, PORT), None, (OUTSIDE, 9)), NatKind.ADDRESS_DEPENDENT),
        (seen((OUTSIDE, PORT), None, ("100.64.1.3", PORT)), NatKind.ADDRESS_DEPENDENT),
        (seen((OUTSIDE, PORT), (OUTSIDE, 8), (OUTSIDE, 9)), NatKind.PORT_DEPENDENT),
        (seen((OUTSIDE, PORT), (OUTSIDE, 8)), NatKind.PORT_DEPENDENT),
        (seen((OUTSIDE, PORT)), NatKind.TRANSLATED),
        (seen(("8.8.4.4", PORT), None, (OUTSIDE, PORT)), NatKind.ADDRESS_DEPENDENT),
        (seen(None, None, None), NatKind.BLOCKED),
        ([], NatKind.UNKNOWN),
        ([Seen(ONE, None, refused=True)], NatKind.UNKNOWN),
        ([Seen(ONE, None, refused=True), Seen(OTHER, None)], NatKind.UNKNOWN),
    ],
)
def test_the_kind_follows_from_what_servers_see(answers: list[Seen], kind: NatKind) -> None:
    assert nat_kind(answers, OWN) is kind


def test_a_server_in_the_own_private_network_tells_nothing() -> None:
    near = Seen(("192.168.1.10", 3478), ("192.168.1.2", PORT))
    assert nat_kind([near], OWN) is NatKind.UNKNOWN
    assert nat_kind([near, Seen(OTHER, None)], OWN) is NatKind.UNKNOWN  # UDP passes as far as there
    assert nat_kind([near, Seen(OTHER, (OUTSIDE, PORT))], OWN) is NatKind.TRANSLATED


def test_a_server_that_sees_a_private_address_of_somebody_else_is_behind_a_nat() -> None:
    assert nat_kind([Seen(ONE, ("10.0.0.5", PORT)), Seen(OTHER, ("10.0.0.5", PORT))], OWN) is (
        NatKind.ENDPOINT_INDEPENDENT
    )
