"""Outputs and uploads as both sides know them: names, sizes, the SHA-256 of the whole and of each chunk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["CHUNK_BYTES", "MAX_NAME_BYTES", "MAX_PART_BYTES", "Manifest", "ManifestBuilder", "check_output_name"]

CHUNK_BYTES = 1 << 20
"""Bytes of every chunk but the last."""

MAX_NAME_BYTES = 512
"""Bound of an output's whole name, UTF-8."""

MAX_PART_BYTES = 255
"""Bound of one part between slashes: what common file systems take (NAME_MAX)."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One file: `size` in bytes, `sha256` `bytes[32]`, `chunks` a `bytes[32]` for each started MiB."""

    size: int
    sha256: bytes
    chunks: tuple[bytes, ...]

    @property
    def chunks_sha256(self) -> bytes:
        """The SHA-256 over those of the chunks: it names the file for readers that hash it once, by chunks."""
        return hashlib.sha256(b"".join(self.chunks)).digest()


class ManifestBuilder:
    """Hashes a file that arrives piece by piece; memory is 32 bytes per MiB seen.

    Args:
        sha256: the SHA-256 of the whole, `bytes[32]`, where somebody has told it together with `chunks_sha256`: each
            byte is then hashed once, and what has that `chunks_sha256` is what was told of.
    """

    def __init__(self, sha256: bytes | None = None) -> None:
        self.size = 0
        self._told = sha256
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._chunks: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self.update_whole(data)
        self.update_chunks(data)

    def update_whole(self, data: bytes | memoryview) -> None:
        """Take the next bytes for the hash of the whole, one half of `update`: two threads may do one each."""
        if self._told is None:
            self._whole.update(data)

    def update_chunks(self, data: bytes | memoryview) -> None:
        """Take the next bytes for the hashes of the chunks, the other half."""
        view = memoryview(data)
        while view:
            room = CHUNK_BYTES - self.size % CHUNK_BYTES
            piece, view = view[:room], view[room:]
            self._chunk.update(piece)
            self.size += len(piece)
            if self.size % CHUNK_BYTES == 0:
                self._chunks.append(self._chunk.digest())
                self._chunk = hashlib.sha256()

    def finish(self) -> Manifest:
        """Return the manifest of all that was taken; may be called again after more updates."""
        tail = (self._chunk.digest(),) if self.size % CHUNK_BYTES else ()
        return Manifest(self.size, self._told or self._whole.digest(), (*self._chunks, *tail))


def check_output_name(name: str) -> str:
    """Return `name` back when Linux takes it for a file below a folder; both sides call this.

    A name is relative, with `/` between its parts, as `charts/size.svg`.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the output name {name!r} is not valid Unicode") from None
    if not name or size > MAX_NAME_BYTES:
        raise ValueError(f"an output's name is 1 to {MAX_NAME_BYTES} bytes long")
    if "\0" in name:
        raise ValueError(f"the output name {name!r} has a null character")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(f"the output name {name!r} is not a plain relative path")
        if len(part.encode()) > MAX_PART_BYTES:
            raise ValueError(f"a part of the output name is longer than {MAX_PART_BYTES} bytes")
    return name
