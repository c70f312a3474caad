"""The page under strain: many events, two answers at once, a node that restarts, a download that is cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import zipfile
from pathlib import Path

import pytest
import pytest_asyncio

from kodo.p2p.core.multiaddr import Multiaddr
from tests.support import koco as support
from tests.support.lossy_relay import lossy_relay
from tests.support.page import Page
from tests.support.page_world import PagesNode, World, events, looks_well, until_saved

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANY = 20_000
FILES = 1000
LARGE_MIB = 64
TOLD = """['Your answer was taken.', 'answered elsewhere', 'Somebody else has answered'].some(each =>
    document.querySelector('#questions')?.parentElement.innerText.includes(each))"""
"""What one who answered is told, first or second."""
LONG_S = 240.0
"""A deadline for what moves much."""


@pytest_asyncio.fixture(loop_scope="session")
async def page(opened: Page) -> Page:
    return opened


async def test_twenty_thousand_events_are_followed_and_few_of_them_are_drawn(world: World, page: Page) -> None:
    await world.launched(page, "Tally", N=str(MANY))
    await page.sees(f"Counted to {MANY}", LONG_S)
    await page.sees(f"i {MANY - 1}", LONG_S)
    drawn = await page.evaluate("document.querySelectorAll('.event-name').length")
    assert 0 < drawn < 500
    await page.fill("searchbox", "Filter events by text", f"i {MANY // 2}")
    await page.wait(
        f"[...document.querySelectorAll('.event-data')].some(each => each.textContent === 'i {MANY // 2}')"
    )
    await looks_well(page)


async def test_of_a_thousand_outputs_few_are_drawn_and_all_are_downloaded_as_one_archive(
    world: World, page: Page, tmp_path: Path
) -> None:
    await world.launched(page, "Many files", Count=str(FILES))
    await page.sees(f"Made {FILES} files.", LONG_S)
    await page.find("button", "All as one zip")
    assert 0 < await page.evaluate("document.querySelectorAll('.output').length") <= 200
    await page.click("button", "Show more")
    await page.sees(f"part-{FILES - 1:04}.txt")
    await page.click("button", "Share")
    await page.click("button", "Make the link")
    await page.sees("For koco")
    link = await page.evaluate("document.querySelector('dialog code').textContent")
    other = await world.browser.page(link, context=await world.browser.context())
    await other.downloads(tmp_path)
    await other.click("button", "Download all")
    await other.sees("verified", LONG_S)
    [archived] = await asyncio.to_thread(support.eventually, lambda: [*tmp_path.glob("*.zip")])
    await until_saved(archived)
    with zipfile.ZipFile(archived) as archive:
        assert sorted(archive.namelist()) == [f"part-{number:04}.txt" for number in range(FILES)]
        assert archive.read(f"part-{FILES - 1:04}.txt") == f"{FILES - 1}\n".encode()
    assert other.complaints == []
    await other.close()


async def test_of_two_answers_at_once_exactly_one_wins(world: World, page: Page) -> None:
    where = await world.launched(page, "Tally", N="2", Ask=True)
    second = await world.same_profile(page, world.origin + where)
    for tab in (page, second):
        await tab.click("checkbox", "Approved", within=("region", "Questions"))
    answer = (
        "[...document.querySelectorAll('#questions ~ * button')].find(each => each.textContent === 'Answer').click()"
    )
    await asyncio.gather(page.evaluate(answer), second.evaluate(answer))
    for tab in (page, second):
        await tab.sees("Counted to 2")
        await tab.wait(TOLD)
    assert [kind for kind in await events(page) if kind == "candidate"] == ["candidate"]
    await second.close()


async def test_a_large_file_goes_on_after_a_reload_in_the_middle(world: World, page: Page, tmp_path: Path) -> None:
    await world.launched(page, "Large file", Mib=str(LARGE_MIB))
    await page.sees("Made.", LONG_S)
    await page.downloads(tmp_path)
    await page.click("button", "Download", within=("region", "Outputs"))
    # Some parts of 16 MiB are on the browser's disk by then.
    half = "parseFloat(document.querySelector('.download .muted')?.textContent ?? '') >= 20"
    await page.wait(
        f"/MB of|MiB of/.test(document.querySelector('.download .muted')?.textContent ?? '') && {half}", LONG_S
    )
    await page.reload()
    await page.click("button", "Download", within=("region", "Outputs"))
    await page.sees("verified", LONG_S)
    saved = tmp_path / "large.bin"
    await until_saved(saved)
    wanted = hashlib.sha256()
    for number in range(LARGE_MIB):
        wanted.update(hashlib.sha256(str(number).encode()).digest() * 32768)
    assert await asyncio.to_thread(lambda: hashlib.sha256(saved.read_bytes()).hexdigest()) == wanted.hexdigest()


async def test_a_run_is_followed_on_when_its_node_was_killed_and_is_back(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ("--executor", "process", "--runners", "0", "--keep-runs", "--host", "127.0.0.1")
    first = PagesNode(home, *words)
    try:
        page = await world.browser.page(world.origin, context=await world.browser.context())
        await page.fill("textbox", "Address or link", first.address)
        await page.click("button", "Open")
        await world.launched(page, "Tally", **{"N": "400", "Pause ms": "50"})
        await page.sees("i 20")
        port = first.address.split("/")[4]
        await asyncio.to_thread(first.kill)
        await page.sees("The node is away.")
        again = await asyncio.to_thread(PagesNode, home, *words, "--port", port)
        await page.sees("Counted to 400", LONG_S)
        assert "The node is away." not in await page.text()
        numbers = await page.evaluate(
            "(async () => { await 0; return [...document.querySelectorAll('.event-data')]"
            ".map(each => /^i (\\d+)$/.exec(each.textContent)?.[1]).filter(Boolean).map(Number) })()"
        )
        assert numbers == sorted(set(numbers))
        await page.close()
        assert await asyncio.to_thread(again.stop) == 0, again.stderr
    finally:
        support.end_all(home)


async def test_a_lost_network_is_told_calmly_and_run_and_upload_go_on_when_it_is_back(
    world: World, tmp_path: Path
) -> None:
    node = Multiaddr.parse(world.node.address)
    large = tmp_path / "large.bin"
    large.write_bytes(random.Random(1).randbytes(48 << 20))
    async with lossy_relay((node.host, node.port), seed=1) as relay:
        # The only way to the node: nobody tells this browser where it is.
        page = await world.browser.page(world.origin, context=await world.browser.context())
        moved = Multiaddr.webrtc_direct("127.0.0.1", relay.port, node.certhash, node.peer_id)
        await page.fill("textbox", "Address or link", str(moved))
        await page.click("button", "Open")

        async def lose() -> None:
            """As a browser tells it that has changed its network; without that it takes some seconds more."""
            relay.cut = True
            await page.evaluate("dispatchEvent(new Event('online'))")

        await page.click("link", "Album")
        await page.attach("Photos", large)
        await page.sees(" of 48 MiB sent")
        await lose()
        relay.cut = False
        await page.sees("1 file, 48 MiB · all sent", LONG_S)
        await page.click("link", "Flows")
        await world.launched(page, "Tally", **{"N": "300", "Pause ms": "20"})
        await page.sees("i 20")
        await lose()
        await page.sees("The node is away.")
        assert await page.all("alert") == []
        await looks_well(page)
        relay.cut = False
        await page.sees("Counted to 300", LONG_S)
        assert "The node is away." not in await page.text()
        assert page.complaints == []
        await page.close()


async def test_a_file_is_pasted_into_its_field(page: Page) -> None:
    await page.click("link", "Nested form")
    field = "[...document.querySelectorAll('label')].find(each => each.textContent.startsWith('Doc')).control"
    await page.wait(f"{field} !== null")
    await page.evaluate(f"""(() => {{
        const clipboardData = new DataTransfer()
        clipboardData.items.add(new File(['twelve bytes'], 'doc.txt'));
        {field}.dispatchEvent(new ClipboardEvent('paste', {{ clipboardData, bubbles: true, cancelable: true }}))
    }})()""")
    await page.sees("12 B, it is there")


async def test_a_folder_is_chosen_or_dropped_and_files_pasted_and_all_of_it_arrives(
    page: Page, tmp_path: Path
) -> None:
    folder = tmp_path / "trip"
    for name, size in (("b.jpg", 10), ("2024/a.jpg", 3 << 20), ("2024/deep/c.jpg", 0), (".hidden/d.jpg", 5)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    await page.click("link", "Album")
    await page.find("button", "Choose a folder")
    # What the picker of the browser gives.
    hidden = await page.send("Runtime.evaluate", {"expression": "document.querySelector('input[type=file][hidden]')"})
    given = {"objectId": hidden["result"]["objectId"], "files": [str(folder)]}
    await page.send("DOM.setFileInputFiles", given)
    await page.sees("3 files, 3.0 MiB · all sent")
    await looks_well(page)
    # Left in the middle or not: what the node has is not sent again.
    await page.reload()
    field = await page.find("button", "Choose a folder")
    quad = (await page.send("DOM.getContentQuads", {"backendNodeId": field}))["quads"][0]
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        await page.send("Input.dispatchDragEvent", {"type": kind, "x": quad[0] + 5, "y": quad[1] + 5, "data": data})
    await page.sees("3 files, 3.0 MiB · all sent")
    await page.evaluate("""(() => {
        const clipboardData = new DataTransfer()
        for (const name of ['e.jpg', 'f.jpg']) clipboardData.items.add(new File(['five!'], name));
        document.querySelector('.drop').dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }))
    })()""")
    await page.sees("5 files, 3.0 MiB · all sent")
    for name in ("e.jpg", "f.jpg"):
        await page.click("button", f"Remove {name}")
    await page.click("button", "Launch")
    await page.hash("#/run/")
    for line in ("folder trip", "names 2024/a.jpg 2024/deep/c.jpg b.jpg", f"bytes {(3 << 20) + 10}"):
        await page.sees(line)


async def test_a_run_is_launched_and_answered_by_keyboard_alone(page: Page) -> None:
    async def reach(what: str) -> None:
        """Press Tab until the element that is meant has the focus."""
        for _ in range(80):
            if await page.evaluate(f"document.activeElement.{what}"):
                return
            await page.press("Tab")
        raise AssertionError(f"Tab leads to nothing with {what}")

    await reach("textContent === 'Tally'")
    await page.press("Enter")
    await page.find("button", "Launch")
    await reach("labels?.[0]?.textContent.startsWith('N')")
    await page.send("Input.insertText", {"text": "3"})
    await reach("labels?.[0]?.textContent.startsWith('Ask')")
    await page.press(" ")
    await reach("textContent === 'Launch'")
    await page.press("Enter")
    await page.hash("#/run/")
    await page.find("button", "Answer")
    await reach(f"labels?.[0]?.textContent.startsWith({json.dumps('Approved')})")
    await page.press(" ")
    await reach("textContent === 'Answer'")
    await page.press("Enter")
    await page.sees("Counted to 3")
