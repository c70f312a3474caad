"""Bytes as text: base58btc and base64url, with and without their multibase letter (multiformats/multibase)."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["base58_decode", "base58_encode", "base64url_decode", "base64url_encode", "decode_multibase"]

BASE58_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
MAX_BASE58_CHARACTERS = 128
"""Decoding takes quadratic time, and the longest text of ours, a peer id, has 52 characters."""
MAX_BASE64_CHARACTERS = 1 << 20

_DIGITS = {letter: digit for digit, letter in enumerate(BASE58_ALPHABET)}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def base58_encode(data: bytes) -> str:
    """Write `data` in base58btc, without a multibase letter; each leading zero byte is a `1`."""
    number = int.from_bytes(data, "big")
    letters: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        letters.append(BASE58_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(letters))


def base58_decode(text: str, *, max_characters: int = MAX_BASE58_CHARACTERS) -> bytes:
    """Read base58btc without a multibase letter.

    Raises:
        ValueError: it is longer than `max_characters`, or a character is not of the alphabet.
    """
    if len(text) > max_characters:
        raise ValueError(f"base58 text of {len(text)} characters is over the limit of {max_characters}")
    number = 0
    for letter in text:
        digit = _DIGITS.get(letter)
        if digit is None:
            raise ValueError(f"{letter!r} is not a base58 character")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def base64url_encode(data: bytes) -> str:
    """Write `data` as multibase base64url without padding: `u…` (RFC 4648, section 5)."""
    return "u" + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def base64url_decode(text: str) -> bytes:
    """Read multibase base64url without padding: `u…`.

    Raises:
        ValueError: another multibase letter, another character, padding, or bits left over.
    """
    if not text.startswith("u"):
        raise ValueError(f"{text[:1]!r} is not the multibase letter of base64url, 'u'")
    body = text[1:]
    if len(body) > MAX_BASE64_CHARACTERS:
        raise ValueError(f"base64url text of {len(body)} characters is over the limit of {MAX_BASE64_CHARACTERS}")
    if _BASE64URL.fullmatch(body) is None:
        raise ValueError("base64url text has a character that is not of its alphabet")
    try:
        data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except binascii.Error as error:
        raise ValueError("base64url text has an impossible length") from error
    # The last character may carry bits that no byte holds; only zeros keep "one value, one text".
    if base64url_encode(data) != text:
        raise ValueError("base64url text has stray bits at its end")
    return data


def decode_multibase(text: str) -> bytes:
    """Read a multibase text: `u` (base64url without padding) or `z` (base58btc).

    Raises:
        ValueError: another letter, or the text is not valid under it.
    """
    match text[:1]:
        case "u":
            return base64url_decode(text)
        case "z":
            return base58_decode(text[1:])
        case letter:
            raise ValueError(f"multibase letter {letter!r} is not supported: only 'u' and 'z'")
