"""The state cookie: all that an INIT said, signed, so that answering one keeps nothing.

Source: RFC 9260, 5.1.3.
"""

from __future__ import annotations

import hmac
from struct import Struct

from kodo.p2p.core.sctp.wire import Init

__all__ = ["COOKIE_SECONDS", "make_cookie", "read_cookie"]

COOKIE_SECONDS = 60.0
_COOKIE = Struct(">dIIHHI???")
_MAC_BYTES = 32


def make_cookie(init: Init, now: float, secret: bytes) -> bytes:
    """Return the cookie for an INIT that came at `now`."""
    said = (init.tag, init.window, init.outbound, init.inbound, init.tsn, init.resets, init.pads, init.forwards)
    body = _COOKIE.pack(now, *said)
    return body + hmac.digest(secret, body, "sha256")


def read_cookie(cookie: bytes, now: float, secret: bytes) -> Init:
    """Return the INIT that a cookie was made for.

    Raises:
        ValueError: when it is not ours or too old.
    """
    body, mac = cookie[:-_MAC_BYTES], cookie[-_MAC_BYTES:]
    if len(body) != _COOKIE.size or not hmac.compare_digest(mac, hmac.digest(secret, body, "sha256")):
        raise ValueError("the cookie is not ours")
    made, tag, window, outbound, inbound, tsn, resets, pads, forwards = _COOKIE.unpack(body)
    if not 0 <= now - made <= COOKIE_SECONDS:
        raise ValueError("the cookie is too old")
    return Init(tag, window, outbound, inbound, tsn, resets, pads, forwards=forwards)
