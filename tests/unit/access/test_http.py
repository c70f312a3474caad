"""Whom an issuer's URL and its words about itself may send us to."""

from __future__ import annotations

import pytest

from kodo.access.http import check_issuer_url, check_metadata
from kodo.p2p.errors import PeerError, UsageError

ISSUER = "https://issuer.example"


@pytest.mark.parametrize(
    "url",
    [ISSUER, "https://issuer.example:8443/realms/x", "http://127.0.0.1:5000", "http://localhost", "http://[::1]:1"],
)
def test_https_is_spoken_to_and_this_machine(url: str) -> None:
    assert check_issuer_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://127.0.0.1.evil.example",
        "http://192.168.1.1",
        "https://ana:secret@issuer.example",
        "https://issuer.example/?x=1",
        "https://issuer.example/#x",
        "file:///etc/passwd",
        "https://issuer.example:port",
        "https://[::1",
        "issuer.example",
        "https://" + "x" * 2100,
    ],
)
def test_what_is_not_spoken_to(url: str) -> None:
    with pytest.raises(UsageError):
        check_issuer_url(url)


def test_what_an_issuer_says_is_about_itself() -> None:
    said = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", "op_policy_uri": "http://policy.example"}
    assert check_metadata(ISSUER, said) is said
    for other in (f"{ISSUER}/", "https://evil.example", None):
        with pytest.raises(PeerError):
            check_metadata(ISSUER, {**said, "issuer": other})


@pytest.mark.parametrize("name", ["jwks_uri", "token_endpoint", "device_authorization_endpoint"])
def test_nobody_is_sent_off_tls(name: str) -> None:
    with pytest.raises(PeerError, match=name):
        check_metadata(ISSUER, {"issuer": ISSUER, name: "http://127.0.0.1:6379/"})
    here = "http://127.0.0.1:5000"
    assert check_metadata(here, {"issuer": here, name: f"{here}/x"})
