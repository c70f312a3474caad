"""Whatever a flow puts in the place of a file that its node, or its runner, opens: it is refused at once.

The worst is a pipe, whose opening waits until somebody opens the other end. What a node reads of a dead process is in
`executors/test_last_words.py`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kodo.flow._runtime.capture import StreamCapture
from kodo.flow._runtime.spool import Spool
from kodo.node.executors.executor import InputFile
from kodo.node.executors.local_files import open_below
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.upload_receiver import Inbox
from kodo.node.executors.upload_sender import file_reader
from kodo.node.files.outputs import Outputs
from kodo.node.files.uploads import _hash_of, _load
from kodo.node.runs.vault import Vault
from kodo.p2p.errors import KodoError, UsageError
from kodo.protocol.ids import make_id
from kodo.protocol.manifest import ManifestBuilder

FID = make_id(1, bytes(10))
UID = "upload-" + make_id(2, bytes(10))
SECRET = b"of somebody else"


def as_output_of_the_runner(place: Path) -> object:
    context = RunnerContext()
    context.folder = place.parent
    context._outputs[place.name] = place.name
    return context.read_output(place.name, 0, 100)


def as_output_on_this_machine(place: Path) -> object:
    return open_below(place.parent, place.name)


def as_output_that_the_node_keeps(place: Path) -> object:
    builder = ManifestBuilder()
    builder.update(SECRET)

    async def read() -> bytes:
        outputs = Outputs(place.parent.parent)
        return b"".join([piece async for piece in outputs.read(FID, place.name, builder.finish(), 0, None)])

    return asyncio.run(read())


def as_upload_to_send(place: Path) -> object:
    async def read() -> bytes:
        async with file_reader(InputFile(UID, place.name, place, 6, "")) as piece:
            return await piece(0, 6)

    return asyncio.run(read())


def as_upload_that_arrives(place: Path) -> object:
    return Inbox().take(place.parent.parent, place.parent.name, place.name, 0, b"content", None) or "taken"


def as_upload_to_hash(place: Path) -> object:
    return _hash_of(place, len(SECRET))


def as_note_of_an_upload(place: Path) -> object:
    return _load(place.parent)


def as_secrets(place: Path) -> object:
    vault = Vault(place.parent, place.parent.parent / "secrets.key")
    vault.open()
    return vault._load(FID)


def as_secrets_to_erase(place: Path) -> object:
    vault = Vault(place.parent, place.parent.parent / "secrets.key")
    vault._erase(place.name)
    return None


def as_spool(place: Path) -> object:
    spool = Spool(place)
    spool.add(1, b"event")
    return spool._file


def as_rest(place: Path) -> object:
    capture = StreamCapture(lambda event, text: None)
    capture.keep_rests(place.parent)
    return capture._kept.get("stdout")


OPENED: list[tuple[str, Callable[[Path], object]]] = [
    ("report.md", as_output_of_the_runner),
    ("report.md", as_output_on_this_machine),
    ("report.md", as_output_that_the_node_keeps),
    ("data", as_upload_to_send),
    ("input.csv", as_upload_that_arrives),
    ("data", as_upload_to_hash),
    ("meta.json", as_note_of_an_upload),
    (FID, as_secrets),
    (FID, as_secrets_to_erase),
    ("unfetched", as_spool),
    ("rest-stdout", as_rest),
]


def pipe(place: Path, elsewhere: Path) -> None:
    os.mkfifo(place)


def folder(place: Path, elsewhere: Path) -> None:
    place.mkdir()


def link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def link_to_a_device(place: Path, elsewhere: Path) -> None:
    place.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, folder, link, link_to_a_device])
@pytest.mark.parametrize(("name", "use"), OPENED, ids=[use.__name__ for _, use in OPENED])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, name: str, use: Callable[[Path], object], put: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(SECRET)
    place = tmp_path / (UID if use is as_upload_that_arrives else FID) / name
    place.parent.mkdir()
    put(place, elsewhere)
    found: list[object] = []

    def work() -> None:
        try:
            found.append(use(place))
        except (OSError, KodoError) as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)  # one that waits must not keep the tests from ending
    thread.start()
    thread.join(60.0)
    assert found, "it waits for a writer"
    assert found[0] in (None, "", b"", []) or (
        isinstance(found[0], OSError | KodoError) and not isinstance(found[0], UsageError)
    )
    assert elsewhere.read_bytes() == SECRET
