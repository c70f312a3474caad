"""Enrolment of a device: the code that an operator makes, and what the device says to show that it was told it.

The code is for one named peer id. What travels is an HMAC over both peer ids, under a key that the code gives: who
overhears the code has not the key of the named peer, and who overhears the proof has not the code.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from kodo.p2p.errors import UsageError

__all__ = ["CODE_BITS", "PROOF_BYTES", "make_code", "make_proof"]

CODE_BITS = 60
PROOF_BYTES = 32

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32: nothing in it is mistaken for something else
_ALIKE = str.maketrans("OIL", "011")
_PURPOSE = b"kodo enrolment v1\x00"


def make_code(entropy: bytes) -> str:
    """Return a code of 12 characters, `XXXX-XXXX-XXXX`, of at least 8 random bytes."""
    number = int.from_bytes(entropy) & ((1 << CODE_BITS) - 1)
    digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(CODE_BITS - 5, -1, -5))
    return "-".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def make_proof(code: str, node: str, device: str) -> bytes:
    """Return the proof (`bytes[32]`): HMAC-SHA256 under the code, over the peer ids of node and device.

    The code is read as people write it: small or capital, with or without its dashes.

    Raises:
        UsageError: it is not a code.
    """
    read = re.sub(r"[\s-]", "", code).upper().translate(_ALIKE)
    if len(read) != CODE_BITS // 5 or not set(read) <= set(_ALPHABET):
        raise UsageError("a code has 12 letters and digits, e.g. 7K3M-0PQR-W9XZ")
    message = _PURPOSE + node.encode() + b"\x00" + device.encode()
    return hmac.digest(read.encode(), message, hashlib.sha256)
