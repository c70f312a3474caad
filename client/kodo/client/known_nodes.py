"""`known_nodes`: which peer id a node's name stood for when it was first used, as SSH keeps `known_hosts`.

One line a node, `name peer-id`; `#` begins a comment. Names are claims that anyone may make; what is pinned here is
what this user's machine has proved once by a handshake. A name whose peer id changed is refused until it is
forgotten (`koco forget`), since only the user can know whether the node was moved or is being impersonated.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from kodo.client.filelock import locked
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import IdentityError, UsageError
from kodo.p2p.net.keystore import write_private

__all__ = ["KnownNodes", "check_name", "is_name"]

MAX_NAME = 253
"""Bound of a node's name: that of a domain name (RFC 1035)."""

MAX_FILE_BYTES = 4 << 20


def check_name(name: str) -> str:
    """Return `name` back when a node may bear it: printable, without spaces, slashes or a leading `#` or `-`.

    Raises:
        UsageError: saying what is wrong with it.
    """
    if not name or len(name) > MAX_NAME:
        raise UsageError(f"a node's name is 1 to {MAX_NAME} characters long")
    if not name.isprintable() or any(character.isspace() or character == "/" for character in name):
        raise UsageError(f"{name!r} cannot be a node's name: it has a space, a slash or a control character")
    if name.startswith(("#", "-")):
        raise UsageError(f"{name!r} cannot be a node's name: it begins with {name[0]}")
    return name


def is_name(text: object) -> bool:
    """Return whether a node may bear this name."""
    try:
        return isinstance(text, str) and bool(check_name(text))
    except UsageError:
        return False


class KnownNodes:
    """The pins in one file. Safe to use from several processes at once; each read sees a whole file."""

    def __init__(self, path: Path):
        self.path = path

    def all(self) -> Mapping[str, PeerId]:
        """Return every pin, by name.

        Raises:
            UsageError: naming the line that cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(raw) > MAX_FILE_BYTES:
            raise UsageError(f"{self.path} is larger than {MAX_FILE_BYTES} bytes; remove lines that are not needed")
        pins: dict[str, PeerId] = {}
        for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
            words = [] if line.lstrip().startswith("#") else line.split()
            if not words:
                continue
            try:
                name, peer = words
                pins[name] = PeerId.parse(peer)
            except ValueError:
                raise UsageError(f"{self.path}, line {number}, is not `name peer-id`; correct or remove it") from None
        return pins

    def get(self, name: str) -> PeerId | None:
        """Return the peer id that `name` is pinned to, if it is."""
        return self.all().get(name)

    def check(self, name: str, peer_id: PeerId) -> bool:
        """Return whether `name` is pinned to `peer_id` already.

        Raises:
            IdentityError: it is pinned to another peer id; the message shows both.
        """
        pinned = self.get(name)
        if pinned is None:
            return False
        if pinned != peer_id:
            raise IdentityError(
                f"the node {name!r} was {pinned} when first used and is now claimed by {peer_id}; if it really got a "
                f"new key, run: koco forget {shlex.quote(name)}"
            )
        return True

    def pin(self, name: str, peer_id: PeerId) -> None:
        """Remember that `name` is `peer_id`; once pinned, a pin stays.

        Raises:
            IdentityError: it is pinned to another peer id.
            UsageError: the name or the file is not usable.
        """
        check_name(name)
        if self.check(name, peer_id):
            return
        with locked(self.path):
            if not self.check(name, peer_id):
                self._write({**self.all(), name: peer_id})

    def forget(self, name: str) -> bool:
        """Remove the pin of `name`; say whether there was one."""
        with locked(self.path):
            pins = dict(self.all())
            if pins.pop(name, None) is None:
                return False
            self._write(pins)
        return True

    def _write(self, pins: Mapping[str, PeerId]) -> None:
        text = "# name peer-id: what each node's name stood for when it was first used\n"
        text += "".join(f"{name} {peer_id}\n" for name, peer_id in sorted(pins.items()))
        write_private(self.path, text.encode())
