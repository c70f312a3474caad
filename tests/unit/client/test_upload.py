"""Uploads from the library to a node's own folder, over links that are cut."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client
from kodo.client.resolve import Found, Wanted
from kodo.client.transfer import Progress
from kodo.client.upload import _without_folders, files_in
from kodo.node.clock import SystemClock
from kodo.node.files.uploads import Uploads
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, IntegrityError, UsageError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.host import Host
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport
from kodo.protocol.args.files import InputWriteArgs
from kodo.protocol.calls import parse_args
from kodo.protocol.ids import make_id
from kodo.protocol.manifest import CHUNK_BYTES

DATA = bytes(range(256)) * (9 * CHUNK_BYTES // 512)


class Node:
    """`cuts`: after so many bytes of a call the network breaks, once each."""

    label = "memory"

    def __init__(self, home: Path) -> None:
        numbers = itertools.count(1)
        self.network = MemoryNetwork(delay_s=0)
        self.uploads = Uploads(
            home / "uploads", clock=SystemClock(), new_id=lambda: make_id(1, next(numbers).to_bytes(10, "big"))
        )
        self.uploads.open()
        self.cuts: list[int] = []
        self.takes_folders = True
        self.received: list[int] = []
        self.launched: list[dict[str, Any]] = []
        self.host = Host(Identity.from_seed(b"n" * 32), MemoryTransport(self.network))
        self.host.handle(CALL_PROTOCOL, CallServer(self.answer))

    async def find(self, wanted: Wanted | None) -> list[Found]:
        return [Found(self.host.peer_id, "n.example", tuple(self.host.addresses()), "lan")]

    async def answer(self, request: Request) -> Any:
        match request.op:
            case "flow.schema":
                return {"path": "flows.x", "name": "x", "schema": {"type": "object"}}
            case "run.launch":
                self.launched.append(request.args)
                return {"fid": make_id(1, b"0123456789"), "state": "pending"}
            case "input.write":
                args = parse_args("input.write", request.args)
                assert isinstance(args, InputWriteArgs)
                if "/" in args.name and not self.takes_folders:
                    raise CallError(400, "bad-args", "a file's name must not contain a folder", {"arg": "name"})
                self.received.append(0)
                return await self.uploads.write("ana", args, self._counted(request))
        raise CallError(404, "no-such-op", request.op)

    async def _counted(self, request: Request) -> AsyncIterator[bytes]:
        async for piece in request.uploads():
            self.received[-1] += len(piece)
            yield piece
            if self.cuts and self.received[-1] >= self.cuts[0]:
                self.cuts.pop(0)
                self.network.cut()


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    for name in ("KODO_HOME", "KODO_REGISTRY", "KODO_NODE"):
        monkeypatch.delenv(name, raising=False)
    node = Node(tmp_path / "node")
    async with node.host:
        await node.host.listen(["10.0.0.1"], 4711)
        yield node


@pytest.fixture
async def client(node: Node, tmp_path: Path) -> AsyncIterator[Client]:
    transport = MemoryTransport(node.network)
    async with Client(tmp_path / "h", lan=False, registries=[], finders=[node], transport=transport) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(DATA)
    return path


def stored(node: Node, uid: str) -> bytes:
    return (node.uploads.root / uid / "data").read_bytes()


async def test_a_file_is_uploaded_and_its_progress_told(node: Node, client: Client, file: Path) -> None:
    seen: list[Progress] = []
    uid = await client.upload(file, node="n.example", on_progress=seen.append)
    assert stored(node, uid) == DATA
    assert [(each.name, each.size) for each in seen] == [("report.pdf", len(DATA))] * len(seen)
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert (seen[0].done, seen[-1].done) == (0, len(DATA))


async def test_a_cut_upload_goes_on_where_the_node_has_it(node: Node, client: Client, file: Path) -> None:
    node.cuts = [2 * CHUNK_BYTES + 1, CHUNK_BYTES + 1]
    uid = await client.upload(file, node="n.example")
    assert stored(node, uid) == DATA
    assert node.cuts == []
    assert sum(node.received) < 2 * len(DATA)
    assert node.received[-1] == 0 or max(node.received) < len(DATA)


async def test_what_the_node_has_is_not_sent_again(node: Node, client: Client, file: Path) -> None:
    uid = await client.upload(file, node="n.example")
    node.received.clear()
    assert await client.upload(file, node="n.example") == uid
    assert sum(node.received) == 0


async def test_paths_among_the_inputs_of_a_launch_become_uploads(node: Node, client: Client, file: Path) -> None:
    other = file.with_name("other.txt")
    other.write_text("other")
    await client.launch("n.example/flows.x", doc=file, inputs={"more": [{"file": other}, "text"], "same": file})
    given = node.launched[0]["inputs"]
    assert given["doc"] == given["same"]
    assert (stored(node, given["doc"]), stored(node, given["more"][0]["file"])) == (DATA, b"other")
    assert given["more"][1] == "text"


async def test_a_file_that_changes_meanwhile_is_no_upload(
    node: Node, client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(progress: Progress) -> None:
        file.write_bytes(DATA[::-1])

    with pytest.raises(IntegrityError, match="changed"):
        await client.upload(file, node="n.example", on_progress=change)


async def test_a_folder_is_not_a_file(node: Node, client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zip it"):
        await client.upload(tmp_path, node="n.example")
    with pytest.raises(UsageError, match="cannot be read"):
        await client.upload(tmp_path / "nothing", node="n.example")


async def test_an_upload_is_for_a_node(client: Client, file: Path) -> None:
    with pytest.raises(UsageError, match="name the node"):
        await client.upload(file)


def test_each_file_is_found_once() -> None:
    one, two = Path("a"), Path("b")
    assert files_in({"x": one, "y": [two, {"z": one}], "w": "text"}) == [one, two]


def test_a_folder_in_a_list_stands_for_the_files_in_it_and_hidden_ones_and_links_stay(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", ".git/config", "deep/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    inside = [tmp_path / name for name in ("a.txt", "b.txt", "deep/c.txt")]
    single = tmp_path / "a.txt"
    names: dict[Path, str] = {}
    found = _without_folders({"docs": [tmp_path, single], "n": [[1]]}, names)
    assert found == {"docs": [*inside, single], "n": [[1]]}
    assert list(names.values()) == [f"{tmp_path.name}/{name}" for name in ("a.txt", "b.txt", "deep/c.txt")]


@pytest.mark.parametrize("takes_folders", [True, False])
async def test_files_of_a_folder_have_its_name_where_the_node_takes_that(
    node: Node, client: Client, tmp_path: Path, takes_folders: bool
) -> None:
    folder = tmp_path / "photos"
    (folder / "2024").mkdir(parents=True)
    (folder / "2024" / "a.jpg").write_bytes(DATA)
    node.takes_folders = takes_folders
    await client.launch("n.example/flows.x", inputs={"docs": [folder]})
    [file] = node.uploads.files("ana", node.launched[0]["inputs"])
    assert (file.name, file.path.read_bytes()) == ("photos/2024/a.jpg" if takes_folders else "a.jpg", DATA)


def test_a_folder_without_files_or_with_too_many_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="has no files"):
        _without_folders([tmp_path], {})
    monkeypatch.setattr("kodo.client.upload.MAX_FOLDER_FILES", 1)
    for name in "ab":
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="more than 1 files"):
        _without_folders([tmp_path], {})
