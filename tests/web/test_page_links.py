"""What leads to the page: links that `koco share` makes, `koco up --web`, and the address of `scripts/run`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support import koco as support
from tests.support.page import Page
from tests.support.page_world import ROOT, PagesNode, World, looks_well, until_saved

pytestmark = pytest.mark.asyncio(loop_scope="session")


def tallied(home: Path, node: PagesNode) -> str:
    """Have a run of somebody who uses `koco`; gives NODE/FID."""
    done = support.koco_json(home, "run", f"{node.address}/Tally", "n=7", "--no-lan", "--yes", "--keep")[-1]
    assert done["state"] == "done"
    return f"{node.address}/{done['fid']}"


async def test_a_link_made_by_koco_opens_in_the_page_and_downloads_verified(world: World, tmp_path: Path) -> None:
    run = tallied(tmp_path / "home", world.node)
    terms = ("share", run, "--host", world.origin, "--no-lan")
    [made] = support.koco_json(tmp_path / "home", *terms)
    assert made["page"] == f"{world.origin}#get={made['token']}"
    said = support.koco(tmp_path / "home", *terms).stdout.strip()
    assert said.startswith(f"{world.origin}#get=")  # what a person copies is that link
    for number, link in enumerate((made["page"], said)):
        page = await world.browser.page(link, context=await world.browser.context())
        await page.find("button", "Download all")
        assert "get=" not in await page.evaluate("location.href")
        assert not any("get=" in each for each in page.requests)
        assert page.complaints == []
        folder = tmp_path / str(number)
        folder.mkdir()
        await page.downloads(folder)
        await page.click("button", "Download all")
        await page.sees("verified")
        await until_saved(folder / "tally.txt")
        assert (folder / "tally.txt").read_text() == "0\n1\n2\n3\n4\n5\n6\n"
        await page.close()


async def test_a_link_without_a_host_names_the_page_of_this_home(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = tallied(home, world.node)
    assert support.koco_json(home, "share", run, "--no-lan")[0]["page"] is None
    (home / "web.port").write_text("8477\n")  # as `koco web` remembers it
    [made] = support.koco_json(home, "share", run, "--no-lan")
    assert made["page"] == f"http://127.0.0.1:8477/#get={made['token']}"
    assert made["link"] == f"kodo:{made['token']}"
    said = support.koco(home, "share", run, "--no-lan")
    assert said.stdout.startswith("kodo:")
    assert "http://127.0.0.1:8477/#get=" in said.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "flows.example.com"], "https://HOST"),
        (["--host", "javascript:alert(1)"], "https://HOST"),
        (["--host", "https://a.example/#x"], "https://HOST"),
        (["--host", "https://me@a.example"], "https://HOST"),
        (["--host", "https://a.example:0"], "https://HOST"),
        (["--host", "https://a.example", "--to", "ana"], "leave out --to"),
    ],
)
async def test_a_host_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, words: list[str], says: str
) -> None:
    [row] = support.koco_json(tmp_path, "share", "0" * 26, *words, "--no-lan", exit_code=2)
    assert says in row["error"]["message"]


async def test_a_node_serves_the_page_beside_itself(world: World, tmp_path: Path) -> None:
    words = ("--web-port", "0", "--executor", "process", "--runners", "0")
    running = PagesNode(tmp_path / "home", *words)
    try:
        url = running.ready["page"]
        origin = url.partition("#")[0]
        page = await world.browser.page(url, context=await world.browser.context())
        await world.launched(page, "Tally", N="3")
        await page.sees("Counted to 3")
        assert page.complaints == []
        assert [each for each in page.requests if not each.startswith((origin, "blob:", "data:"))] == []
        await page.close()
        await is_told_of_what_was_shared(world, running, tmp_path / "friend")
        stranger = await world.browser.page(origin, context=await world.browser.context())
        await stranger.sees("This browser has not been let in yet")
        await stranger.close()
        assert running.stop() == 0, running.stderr
    finally:
        support.end_all(tmp_path / "home")


async def is_told_of_what_was_shared(world: World, running: PagesNode, friend: Path) -> None:
    """A run that somebody shared is in the list of a browser that has not used its node, but is near it."""
    page = await world.browser.page(running.ready["page"], context=await world.browser.context())
    await page.click("link", "Me")
    await page.wait("/12D3KooW\\w{44}/.test(document.body.innerText)")
    peer_id = await page.evaluate("/12D3KooW\\w{44}/.exec(document.body.innerText)[0]")
    run = tallied(friend, running)
    support.koco_json(friend, "share", run, "--to", peer_id, "--no-lan")
    await page.click("link", "Runs")
    await page.click("link", "Tally")
    await page.sees("Counted to 7")
    await page.close()


async def test_the_address_of_scripts_run_is_one_click_from_the_sample(world: World) -> None:
    spec = importlib.util.spec_from_file_location("main_job", ROOT / "scripts" / "main_job.py")
    assert spec
    assert spec.loader
    main_job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main_job)
    [path] = [
        row["path"]
        for row in support.koco_json(world.home, "flows", "--node", world.node.address, "--no-lan")
        if row["name"] == "Tally"
    ]
    url = main_job.at_flow(world.url, world.node.ready["peer_id"], path)
    page: Page = await world.browser.page(url, context=await world.browser.context())
    await page.find("button", "Launch")
    assert "key=" not in await page.evaluate("location.href")
    await looks_well(page)
    await page.fill("textbox", "N", "2")
    await page.click("button", "Launch")
    await page.hash("#/run/")
    await page.sees("Counted to 2")
    assert page.complaints == []
    await page.close()
