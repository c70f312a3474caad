"""Names of outputs on systems that cannot store each of them: what is wrong with one, and what it is called there.

Linux tells all names apart and takes nearly every character. Windows and macOS do not; so a receiver there writes
what its system cannot store as `%` and two hexadecimal digits for each byte, as URLs do (RFC 3986, section 2.1):

    a:b.txt ─► a%3Ab.txt      CON ─► %43ON      notes. ─► notes%2E      A.txt beside a.txt ─► %41.txt beside a.txt

`original_name` turns it back. Names that need nothing stay as they are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from urllib.parse import unquote

from kodo.protocol.manifest import MAX_PART_BYTES

__all__ = ["WINDOWS", "fold", "original_name", "portability", "stored_names"]

WINDOWS = "win32"
"""Of `sys.platform`; every name that it stores macOS and Linux store too."""

_CASELESS = (WINDOWS, "darwin", "cygwin")
_FORBIDDEN = frozenset('\\:*?"<>|')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))]
)
_JOINERS = frozenset("\u200c\u200d")  # which scripts and emoji need
_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")


def fold(name: str) -> str:
    """Return what names that macOS or Windows take for the same have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def portability(name: str, others: Iterable[str] = ()) -> str | None:
    """Return why a system other than Linux could not store an output of this name; None: each can.

    Args:
        others: the names that there are; one that differs only in case or in its composed characters is in the way.
    """
    for part in name.split("/"):
        wrong = sorted({character for character in part if character in _FORBIDDEN or _is_control(character)})
        if wrong:
            return f"it has {' '.join(map(repr, wrong))}, which not each system takes in a name"
        if part[-1] in ". ":
            return "Windows drops dots and spaces at the end of a name"
        if part.split(".")[0].rstrip().lower() in _RESERVED:
            return f"Windows has a device {part.split('.')[0].rstrip().upper()}"
    there = next((other for other in others if other != name and fold(other) == fold(name)), None)
    return f"Windows and macOS take it for {there!r}" if there is not None else None


def stored_names(names: Collection[str], system: str) -> dict[str, str]:
    """Return for each output's name what it is called on a system, as `sys.platform` names it: never two the same.

    On Linux, and on others like it, each name is its own; but for control characters, which nobody should meet in a
    terminal, and those that change the order of a text.
    """
    caseless = system in _CASELESS
    if not caseless and not any(_is_control(character) for name in names for character in name):
        return {name: name for name in names}
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        for prefix in _prefixes(name):
            spellings[fold(prefix)].add(prefix)
    stored = {}
    for name in names:
        parts = [
            _stored_part(part, system, alike=caseless and len(spellings[fold(prefix)]) > 1)
            for part, prefix in zip(name.split("/"), _prefixes(name), strict=True)
        ]
        stored[name] = "/".join(parts)
    return stored


def original_name(stored: str) -> str:
    """Return the output's name of what `stored_names` called it."""
    return unquote(stored, errors="strict")


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[: length + 1]) for length in range(len(parts))]


def _stored_part(part: str, system: str, *, alike: bool) -> str:
    bad = {
        index for index, character in enumerate(part) if alike and (character.isupper() or not character.isascii())
    }
    bad |= {match.start() for match in _ESCAPED.finditer(part)}  # or it would be read as one
    bad |= {index for index, character in enumerate(part) if _is_control(character)}
    if system in (WINDOWS, "cygwin"):
        bad |= {index for index, character in enumerate(part) if character in _FORBIDDEN}
        bad |= {len(part) - 1} if part[-1] in ". " else set()
        bad |= {0} if part.split(".")[0].rstrip().lower() in _RESERVED else set()
    made = "".join(_escape(character) if index in bad else character for index, character in enumerate(part))
    if len(made.encode()) <= MAX_PART_BYTES:
        return made
    # Too long with escapes: the one name that cannot be turned back, for there is no room to say it.
    digest = hashlib.sha256(part.encode()).hexdigest()[:16]
    return f"{made.encode()[:200].decode('utf-8', 'ignore')}~{digest}"


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _is_control(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
