"""`known_runs`: on which node this user's runs are, so that a bare FID means the node that the run was launched on.

One line a run, `fid peer-id`. Any node nearby may claim any run; a line here was proved by a session: the node took
the launch or opened the link, or the user named the node and it knew the run. No later claim replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kodo.client.filelock import locked
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import write_private
from kodo.protocol.ids import is_id

__all__ = ["KnownRuns"]

MAX_FILE_BYTES = 1 << 20
"""Bound of the file: some 13,000 runs. Beyond it the older half is forgotten; those runs are asked about again."""


MIN_END = 6
"""Characters of a shortened fid's end that say which run is meant."""


class KnownRuns:
    """The runs in one file. Safe to use from several processes at once."""

    def __init__(self, path: Path):
        self.path = path

    def get(self, fid: str) -> PeerId | None:
        """Return the node that a run is on; None when it is not known.

        Raises:
            UsageError: the file cannot be read, or the line of this run is damaged.
        """
        for known, peer in self._read():
            if known == fid:
                try:
                    return PeerId.parse(peer)
                except ValueError:
                    raise UsageError(f"{self.path}: the line of {fid} is not `fid peer-id`; remove it") from None
        return None

    def whole(self, shortened: str) -> str:
        """Return the fid that a table has shortened to this, as `flows.e…9y0abcde`; anything else as it is.

        Raises:
            UsageError: no known run ends so, or several do.
        """
        _, cut, end = shortened.rpartition("…")
        if not cut:
            return shortened
        fitting = [fid for fid, _ in self._read() if len(end) >= MIN_END and fid.endswith(end)]
        if len(fitting) != 1:
            raise UsageError(
                f"{'several' if fitting else 'no'} known runs end with {end[:26]!r}; `koco ps --wide` shows ids whole"
            )
        return fitting[0]

    def add(self, runs: Mapping[str, PeerId], *, make_room: bool = True) -> None:
        """Remember on which nodes runs are; what is known already stays.

        Args:
            make_room: forget the oldest runs when the file is full. Otherwise nothing more is remembered then: a
                node that lists many runs does not displace those that were launched.

        Raises:
            UsageError: the file cannot be read or written.
        """
        if not runs:
            return
        with locked(self.path):
            kept = self._read()
            known = {fid for fid, _ in kept}
            new = [(fid, str(peer)) for fid, peer in runs.items() if is_id(fid) and fid not in known]
            size = sum(len(fid) + len(peer) + 2 for fid, peer in kept + new)
            if new and (make_room or size <= MAX_FILE_BYTES):
                self._write(kept if size <= MAX_FILE_BYTES else kept[len(kept) // 2 :], new)

    def _read(self) -> list[tuple[str, str]]:
        try:
            with self.path.open("rb") as file:
                raw = file.read(2 * MAX_FILE_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from error
        lines = (line.split() for line in raw.decode("utf-8", "replace").splitlines())
        return [(words[0], words[1]) for words in lines if len(words) == 2 and is_id(words[0])]

    def _write(self, kept: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
        write_private(self.path, "".join(f"{fid} {peer}\n" for fid, peer in kept + new).encode())
