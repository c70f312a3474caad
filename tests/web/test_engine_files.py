"""Files of the engine in Chromium: downloaded verified into each sink, resumed, zipped, read in place, sent."""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kodo.node.app import Node
from kodo.protocol.portable_names import WINDOWS, original_name, stored_names
from tests.support.page import Page
from tests.support.web_page import content, target

MIB = 1 << 20

MAKE = """
    const node = openEngine().node(target)
    const { fid } = await node.ask('run.launch', { path: 'flows.make', inputs: { files } })
    await node.follow(fid).done()
"""


async def saved(page: Page, folder: Path) -> Path:
    """Wait for the browser's own download; return its file."""
    async with asyncio.timeout(30):
        assert await page.ended.get() == "completed"
    return only_file(folder)


def only_file(folder: Path) -> Path:
    """Return the one file of a folder."""
    [file] = list(folder.iterdir())
    return file


@pytest.mark.parametrize(
    ("sink", "size"), [("blob", 0), ("blob", 5 * MIB + 3), ("stream", 13 * MIB), ("opfs", 0), ("opfs", 17 * MIB + 1)]
)
async def test_a_download_arrives_whole_and_verified(
    page: Page, node: Node, tmp_path: Path, sink: str, size: int
) -> None:
    result = await page.run(
        MAKE
        + """
        const download = node.download(fid, 'made/file.bin', { sink }), told = []
        download.on(news => told.push(news.bytes))
        const result = await download.done
        const rising = told.every((bytes, i) => i === 0 || bytes >= told[i - 1])
        return { ...result, bytes: download.bytes, status: download.status, rising }
        """,
        target=target(node),
        files={"made/file.bin": size},
        sink=sink,
    )
    file = await saved(page, tmp_path / "downloads")
    expected = hashlib.sha256(content(size)).hexdigest()
    assert result["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() == expected
    assert (file.name, result["sink"]) == ("file.bin", sink)
    assert (result["bytes"], result["status"], result["rising"]) == (size, "done", True)


async def test_a_download_goes_on_after_a_reload_where_it_was(page: Page, node: Node, tmp_path: Path) -> None:
    about: dict[str, Any] = {"target": target(node), "files": {"file.bin": 24 * MIB}}
    fid = await page.run(MAKE + "return fid", **about)
    await page.run(
        """
        // The second part never gets anywhere, so that the page is surely left in the middle.
        const write = FileSystemFileHandle.prototype.createWritable
        FileSystemFileHandle.prototype.createWritable = function (...options) {
          return this.name === '000001' ? new Promise(() => {}) : write.apply(this, options)
        }
        const node = openEngine().node(target)
        const download = node.download(fid, 'file.bin', { sink: 'opfs' })
        await new Promise(resolve => download.on(news => news.bytes >= 16 << 20 && resolve()))
        """,
        target=about["target"],
        fid=fid,
    )
    await page.reload()
    answer = await page.run(
        """
        const engine = openEngine(), node = engine.node(target)
        const before = await engine.unfinished()
        const download = node.download(fid, 'file.bin', { sink: 'opfs' })
        const first = await new Promise(resolve => download.on(news => resolve(news.bytes)))
        await download.done
        return { before, first, after: await engine.unfinished() }
        """,
        target=about["target"],
        fid=fid,
    )
    assert [(each["name"], each["size"], each["fid"]) for each in answer["before"]] == [("file.bin", 24 * MIB, fid)]
    assert answer["first"] >= 16 * MIB, "what was there was fetched again"
    assert answer["after"] == []
    file = await saved(page, tmp_path / "downloads")
    assert file.read_bytes() == content(24 * MIB)


async def test_what_the_disk_changed_is_fetched_again(page: Page, node: Node, tmp_path: Path) -> None:
    about: dict[str, Any] = {"target": target(node), "files": {"file.bin": 24 * MIB}}
    fid = await page.run(MAKE + "await node.download(fid, 'file.bin', { sink: 'opfs' }).done\nreturn fid", **about)
    async with asyncio.timeout(30):
        assert await page.ended.get() == "completed"  # the browser reads the file itself until then
    first = await page.run(
        """
        const node = openEngine().node(target)
        const root = await navigator.storage.getDirectory()
        const all = await root.getDirectoryHandle('kodo-downloads')
        for await (const folder of all.values()) {
          const part = await folder.getFileHandle('000000')
          const writable = await part.createWritable({ keepExistingData: true })
          await writable.write({ type: 'write', position: 1 << 20, data: new Uint8Array(1) })
          await writable.write({ type: 'write', position: 1 << 20, data: Uint8Array.of(255) })
          await writable.close()
        }
        const download = node.download(fid, 'file.bin', { sink: 'opfs' })
        const first = await new Promise(resolve => download.on(news => resolve(news.bytes)))
        await download.done
        return first
        """,
        fid=fid,
        **about,
    )
    assert first < 16 * MIB
    async with asyncio.timeout(30):
        assert await page.ended.get() == "completed"
    assert only_file(tmp_path / "downloads").read_bytes() == content(24 * MIB), (
        "the second is in the place of the first"
    )


async def test_outputs_are_downloaded_as_one_zip(page: Page, node: Node, tmp_path: Path) -> None:
    files = {"a/ä.txt": 10, "empty": 0, "b/large.bin": 6 * MIB}
    await page.run(
        MAKE + "return (await node.downloadZip(fid, Object.keys(files), { saveAs: 'all.zip' }).done).size",
        target=target(node),
        files=files,
    )
    file = await saved(page, tmp_path / "downloads")
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: content(size) for name, size in files.items()
        }


async def test_names_that_not_each_disk_stores_can_be_told_from_their_files(
    page: Page, node: Node, tmp_path: Path
) -> None:
    names = ["a/10:30.txt", "con", ".env", "notes.", "50% off.txt", "100%41", "A.txt", "a.txt", "x\u202ey.txt"]
    await page.run(
        MAKE + "for (const name of Object.keys(files)) await node.download(fid, name).done",
        target=target(node),
        files=dict.fromkeys(names, 3),
    )
    folder = tmp_path / "downloads"
    async with asyncio.timeout(30):
        for _ in names:
            assert await page.ended.get() == "completed"
    single = {file.name for file in folder.iterdir()}
    assert {original_name(file) for file in single} == {name.split("/")[-1] for name in names}
    await page.run(
        MAKE + "await node.downloadZip(fid, Object.keys(files), { saveAs: 'all.zip' }).done",
        target=target(node),
        files=dict.fromkeys(names, 3),
    )
    async with asyncio.timeout(30):
        assert await page.ended.get() == "completed"
    with zipfile.ZipFile(folder / "all.zip") as archive:
        assert archive.namelist() == list(stored_names(names, WINDOWS).values())


async def test_an_output_is_read_in_place_up_to_a_bound(page: Page, node: Node) -> None:
    answer = await page.run(
        MAKE
        + """
        const bytes = await node.read(fid, 'x')
        const refused = await node.read(fid, 'x', { maxBytes: 100 }).catch(error => error.name)
        return { text: Array.from(bytes.slice(0, 16)), length: bytes.length, refused }
        """,
        target=target(node),
        files={"x": 2 * MIB},
    )
    assert bytes(answer["text"]) == content(16)
    assert (answer["length"], answer["refused"]) == (2 * MIB, "CapacityError")


async def test_a_file_is_sent_once_and_stands_for_itself_in_inputs(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const node = openEngine().node(target)
        const bytes = Uint8Array.from({ length: size }, (_, i) => i * 7)
        const file = new File([bytes], 'in.bin')
        const first = node.upload(file, file.name), told = []
        first.on(news => told.push(news.bytes))
        const id = await first.done
        const again = await node.upload(file, file.name).done
        return { id, again, bytes: first.bytes, status: first.status, some: told.length > 0 }
        """,
        target=target(node),
        size=3 * MIB + 5,
    )
    assert answer["id"].startswith("upload-")
    assert answer["id"] == answer["again"]
    assert (answer["bytes"], answer["status"], answer["some"]) == (3 * MIB + 5, "done", True)
    [stored] = [
        each for each in (Path(node.config.home) / "uploads" / answer["id"]).iterdir() if each.stat().st_size > MIB
    ]
    assert stored.read_bytes() == bytes(number * 7 % 256 for number in range(3 * MIB + 5))


async def test_a_shared_run_is_opened_by_its_link_and_a_dead_link_says_why(page: Page, node: Node) -> None:
    answer = await page.run(
        MAKE
        + """
        const { sid, link } = await node.ask('run.share', { fid, link: true, level: 1, expires_s: 3600 })
        const guest = openEngine({ database: 'guest' })
        const shared = await guest.openLink(parseLink(link))
        const view = await shared.node.follow(shared.fid).done()
        const bytes = await shared.node.read(shared.fid, 'x')
        await node.call('share.revoke', { sid })
        const refused = await shared.node.read(shared.fid, 'x').catch(error => error.reason)
        const late = openEngine({ database: 'late' })
        const dead = await late.openLink(parseLink(link)).catch(error => [error.code, error.reason])
        return { others: await guest.identity.peerId() !== await openEngine().identity.peerId(), state: view.state,
                 outputs: [...view.outputs.keys()], length: bytes.length, refused, dead }
        """,
        target=target(node),
        files={"x": 1000},
    )
    assert answer["others"]
    assert (answer["state"], answer["outputs"], answer["length"]) == ("done", ["x"], 1000)
    assert (answer["refused"], answer["dead"]) == ("revoked", [410, "revoked"])
