"""The page as a person uses it: `koco web` and `koco up` in processes of their own, a real Chromium."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.page import Page
from tests.support.page_world import ROOT, World, events, looks_well, until_saved

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUDGET = 120 * 1024
"""Bytes of code and styles that the first load may take, compressed."""


@pytest_asyncio.fixture(loop_scope="session")
async def page(opened: Page) -> Page:
    return opened


async def test_the_main_job_is_done_in_the_page(world: World, page: Page, tmp_path: Path) -> None:
    where = await world.launched(page, "Tally", N="25", Ask=True)
    await page.sees("locked")
    await page.sees("i 3")
    await looks_well(page)
    await page.click("checkbox", "Approved", within=("region", "Questions"))
    await page.click("button", "Answer", within=("region", "Questions"))
    await page.sees("Counted to 25")
    await page.sees("done")
    await page.downloads(tmp_path)
    await page.click("button", "Download", within=("region", "Outputs"))
    await page.sees("verified")
    saved = tmp_path / "tally.txt"
    await until_saved(saved)
    assert saved.read_text() == "".join(f"{number}\n" for number in range(25))
    await page.reload()
    await page.gives("location.hash", where)
    await page.sees("Counted to 25")
    await page.sees("i 24")
    peer_id, fid = where.removeprefix("#/run/").split("/")
    assert peer_id == world.node.ready["peer_id"]
    assert len(fid) == 26


async def test_a_run_is_repeated_with_inputs_changed_or_pasted(world: World, page: Page) -> None:
    await world.launched(page, "Tally", N="3")
    await page.sees("Counted to 3")
    await page.click("link", "Change inputs")
    await page.sees("inputs of an earlier run")
    await looks_well(page)
    await page.fill("textbox", "N", "4")
    await page.click("button", "Launch")
    await page.sees("Counted to 4")
    await page.click("link", "Change inputs")
    await page.sees("inputs of an earlier run")
    await page.click("button", "Launch")  # what was not touched is as it was
    await page.sees("Counted to 4")
    await page.click("link", "Change inputs")
    await page.sees("inputs of an earlier run")
    await page.evaluate("document.querySelector('details:has(textarea)').open = true")
    for text, seen in (("[1]", "This is not a JSON object"), ('{"n": 5}', "Paste inputs as JSON")):
        await page.fill("textbox", "Paste inputs as JSON", text)
        await page.click("button", "Fill in the form")
        await page.sees(seen)
    await page.click("button", "Launch")
    await page.sees("Counted to 5")


async def test_a_reload_in_the_middle_goes_on_with_the_next_event(world: World, page: Page) -> None:
    await world.launched(page, "Tally", **{"N": "60", "Pause ms": "50"})
    await page.sees("i 5")
    await page.reload()
    await page.sees("i 59")
    await page.sees("done")
    numbers = await page.evaluate(
        "[...document.querySelectorAll('.event-data')].map(each => /^i (\\d+)$/.exec(each.textContent)?.[1])"
        ".filter(each => each !== undefined).map(Number)"
    )
    assert numbers == list(range(60))


async def test_a_search_narrows_the_flows(page: Page) -> None:
    await page.fill("searchbox", "Search", "each kind")
    await page.wait("[...document.querySelectorAll('main a')].every(each => each.textContent !== 'Tally')")
    await page.find("link", "Gallery")
    await page.fill("searchbox", "Search", "nothing has this")
    await page.sees("No flow fits this search")
    await page.gives("location.hash", "#/flows?search=nothing+has+this")


async def test_a_flow_that_is_opened_while_the_search_settles_stays_open(page: Page) -> None:
    await page.find("link", "Gallery")
    await page.evaluate("""(async () => {
        const real = window.setTimeout
        const late = []
        window.setTimeout = (run, after, ...more) => (after === 250 ? late.push(run) : real(run, after, ...more))
        const field = document.querySelector('[type=search]')
        field.value = 'gal'
        field.dispatchEvent(new Event('input', { bubbles: true }))
        while (late.length === 0) await new Promise(resolve => real(resolve, 10))
        window.setTimeout = real
        ;[...document.querySelectorAll('main a')].find(each => each.textContent === 'Gallery').click()
        late.forEach(run => run())
    })()""")
    await page.find("button", "Launch")
    assert (await page.evaluate("location.hash")).startswith("#/flow/")


async def test_a_nested_form_shows_refusals_beside_the_fields_and_sends_everything(
    world: World, page: Page, tmp_path: Path
) -> None:
    doc = tmp_path / "doc.txt"
    doc.write_text("twelve bytes")
    await page.click("link", "Nested form")
    await page.click("button", "Launch")
    await page.sees("This is needed.")
    await page.gives("document.activeElement.labels[0].textContent", "Title")
    await looks_well(page)
    await page.fill("textbox", "Title", "ab")
    await page.choose("Size", "large")
    await page.fill("textbox", "City", "Ulm")
    await page.fill("textbox", "Zip", "89073")
    await page.click("button", "Launch")
    await page.sees("it does not fit: minLength")  # the node's own words: the form has a secret
    assert (await page.text()).count("minLength") == 1  # beside the field, and nowhere else
    await page.fill("textbox", "Title", "Trip")
    await page.click("button", "Add to Stops")
    await page.fill("textbox", "City", "Bonn", within=("group", "Stops 1"))
    await page.fill("textbox", "Zip", "53111", within=("group", "Stops 1"))
    await page.click("checkbox", "blue")
    await page.fill("textbox", "Limit", "9007199254740993")
    await page.click("checkbox", "Urgent")
    await page.fill("textbox", "Key", "secret")
    await page.attach("Doc", doc)
    await page.sees("it is there")
    await page.click("button", "Launch")
    await page.hash("#/run/")
    await page.sees("done")
    for line in ("size Size.LARGE", "stops 1", "limit 9007199254740993", "urgent true", "secret 6", "doc 12"):
        await page.sees(line)
    assert "secret\n" not in await page.text()


async def test_outputs_are_shown_in_place_and_nothing_of_them_acts(world: World) -> None:
    page = await world.page()
    await world.launched(page, "Gallery")
    await page.sees("done")
    for _ in range(7):
        await page.click("button", "Show", within=("region", "Outputs"))
    await page.wait("document.querySelectorAll('.shown-image').length === 2")
    await page.wait("document.querySelector('.shown-image').complete")
    await page.sees("<b>not bold</b>")
    await page.sees("Bad, Homburg")
    await page.sees("1152921504606846976")  # 2**60, digit for digit
    await page.gives("document.querySelector('.prose strong').textContent", "bold")
    await page.gives("[...document.querySelectorAll('iframe')].map(each => each.sandbox.length)", [0])
    assert await page.evaluate("[...document.querySelectorAll('.prose a, .prose img')].length") == 0
    assert "owned" not in await page.evaluate("document.title")
    await looks_well(page)
    assert [each for each in page.requests if not each.startswith((world.origin, "blob:", "data:"))] == []
    # What the policy refused is what the hostile page tried, in its own frame.
    assert all("inline" in each for each in page.complaints)
    await page.close()


async def test_what_a_hostile_node_says_is_text(world: World, page: Page) -> None:
    await page.wait("document.querySelectorAll('.flow-card').length === 7")
    await page.find("link", "Nested form")
    await page.evaluate("document.querySelector('.flow-card a').click()")
    await page.find("button", "Launch")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    await page.click("button", "Launch")
    await page.hash("#/run/")
    await page.find("button", "Answer")
    await page.sees("__proto__ {polluted true}")
    assert await page.evaluate("({}).polluted === undefined && document.querySelectorAll('main img').length") == 0
    await page.wait("document.title.startsWith('locked')")
    await looks_well(page)
    await page.click("button", "Kill")
    await page.click("button", "Kill the run")
    await page.sees("Killed")
    await page.click("button", "Delete")
    await page.click("button", "Delete for good")
    await page.hash("#/runs")


async def test_a_shared_run_opens_for_somebody_else_until_it_is_revoked(
    world: World, page: Page, tmp_path: Path
) -> None:
    await world.launched(page, "Tally", N="3")
    await page.sees("done")
    await page.click("button", "Share")
    await looks_well(page)
    await page.click("button", "Make the link")
    await page.sees("For koco")
    link = await page.evaluate("document.querySelector('dialog code').textContent")
    assert link.startswith(f"{world.origin}#get=")
    other = await world.browser.page(link, context=await world.browser.context())
    await other.find("button", "Download all")
    assert "get=" not in await other.evaluate("location.href")
    assert not any("get=" in each for each in other.requests)
    assert await other.all("button", "Kill") == await other.all("button", "Delete") == []
    await looks_well(other)
    await other.downloads(tmp_path)
    await other.click("button", "Download all")
    await other.sees("verified")
    await until_saved(tmp_path / "tally.txt")
    await other.reload()
    await other.find("button", "Download all")

    await page.press("Escape")
    await page.evaluate(f"location.hash = '#/nodes/{world.node.ready['peer_id']}'")
    await page.find("button", "End it")
    await looks_well(page)
    await page.click("button", "End it")
    await page.sees("revoked")
    await other.reload()
    await other.sees("revoked")
    await looks_well(other)
    assert other.complaints == []
    await other.close()


async def test_a_run_is_shared_with_somebody_by_name_who_answers_it(world: World, page: Page) -> None:
    other = await world.page()
    await other.find("link", "Tally")
    await other.click("link", "Me")
    peer = await other.wait("document.querySelector('.copy code')?.textContent")
    where = await world.launched(page, "Tally", N="2", Ask=True)
    await page.find("button", "Answer")
    await page.click("button", "Share")
    await page.choose("Share with", "Users and roles")
    await looks_well(page)
    await page.fill("textbox", "Users and roles", "nobody")
    await page.click("button", "Share it")
    await page.sees("The node knows nobody of this name")
    await page.fill("textbox", "Users and roles", peer)
    await page.click("checkbox", "They may also answer its questions and kill it")
    await page.click("button", "Share it")
    await page.sees("It is in their list of runs.")

    await other.evaluate(f"location.hash = {json.dumps(where)}")
    await other.click("checkbox", "Approved", within=("region", "Questions"))
    await other.click("button", "Answer")
    await other.sees("Counted to 2")
    await page.press("Escape")
    await page.sees("Counted to 2")
    await other.close()


async def test_a_damaged_link_says_so(world: World) -> None:
    page = await world.browser.page(f"{world.origin}#get=lgHEJ", context=await world.browser.context())
    await page.sees("This is no whole link")
    assert "lgHEJ" not in await page.evaluate("location.href")
    await page.close()


async def test_one_answer_counts_and_the_other_tab_is_told(world: World, page: Page) -> None:
    where = await world.launched(page, "Tally", N="2", Ask=True)
    await page.find("button", "Answer")
    second = await world.same_profile(page, world.origin + where)
    await second.find("button", "Answer")
    await page.click("checkbox", "Approved", within=("region", "Questions"))
    await page.click("button", "Answer")
    await page.sees("Counted to 2")
    await second.sees("Counted to 2")
    text = await second.text()
    assert text.count("candidate") >= 1
    assert [kind for kind in await events(second) if kind == "candidate"] == ["candidate"]
    await second.close()


async def test_every_other_page_is_reached_and_looks_well(world: World, page: Page) -> None:
    await world.launched(page, "Tally", N="2")
    await page.sees("done")
    for name, sees in {"Runs": "By flow", "Inbox": "Tally", "Nodes": "Look at it", "Me": "Your peer id"}.items():
        await page.click("link", name)
        await page.wait(f"document.querySelector('h1').textContent === {json.dumps(name)}")
        await page.sees(sees)
        await looks_well(page)
    await page.click("link", "Nodes")
    await page.find("heading", "Nodes")
    await page.click("link", "Look at it")
    await page.sees("Runners")
    await looks_well(page)
    await page.click("link", "Me")
    await page.click("button", "Dark")
    await page.gives("document.documentElement.dataset.theme", "dark")
    await page.reload()
    await page.gives("document.documentElement.dataset.theme", "dark")


async def test_a_locked_key_asks_each_tab_for_its_password(world: World, page: Page) -> None:
    password = "correct horse battery"
    await page.click("link", "Me")
    await page.sees("Only an identity that has a password can be locked")
    await page.fill("textbox", "Password", password)
    await page.click("button", "Make a movable identity")
    await page.click("button", "Make a movable identity", within=("dialog", "Change your identity?"))
    await page.fill("textbox", "Password of your identity", password)
    await page.click("button", "Lock")
    await page.find("button", "Unlock")
    await looks_well(page)
    second = await world.same_profile(page, world.origin + "#/runs")
    for tab, typed in ((page, password), (second, "wrong")):
        await tab.fill("textbox", "Password of your identity", typed)
        await tab.click("button", "Unlock")
    await page.find("button", "Lock now")
    await looks_well(page)
    await second.sees("This is not the password of your identity")
    await second.fill("textbox", "Password of your identity", password)
    await second.click("button", "Unlock")
    await second.find("heading", "Runs")
    await page.click("button", "Lock now")
    await second.find("button", "Unlock")
    await second.click("DisclosureTriangle", "You do not know the password?")
    await second.click("button", "Forget this identity")
    await second.click("button", "Forget this identity", within=("dialog", "Forget this identity for good?"))
    for tab in (second, page):
        await tab.find("link", "Me")
        await tab.wait("!document.body.innerText.includes('key is locked')")
    await second.close()


async def test_the_page_is_used_by_keyboard_alone(page: Page) -> None:
    await page.find("link", "Tally")
    await page.evaluate("document.activeElement.blur()")
    await page.press("Tab")
    await page.gives("document.activeElement.textContent", "Skip to the page")
    for _ in range(30):
        await page.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == "Tally":
            break
    await page.press("Enter")
    await page.find("button", "Launch")
    await page.wait("document.activeElement === document.body || document.activeElement.matches('h1')")


async def test_a_browser_that_was_not_let_in_sees_no_nodes(world: World) -> None:
    page = await world.browser.page(world.origin, context=await world.browser.context())
    await page.sees("This browser has not been let in yet")
    assert await page.all("link", "Tally") == []
    assert not any("/api/" in each for each in page.requests)
    # An address works without it.
    await page.fill("textbox", "Address or link", world.node.address)
    await page.click("button", "Open")
    await page.find("link", "Tally")
    assert page.complaints == []
    await page.close()


async def test_a_registry_serves_the_page_too(world: World) -> None:
    page = await world.browser.page(world.node.ready["registries"][0], context=await world.browser.context())
    await page.find("link", "Tally")
    assert page.complaints == []
    await page.close()


async def test_the_first_load_is_within_its_budget(koco_url: str) -> None:
    """All that the page loads before anybody does anything, as the server sends it."""
    origin = koco_url.partition("#")[0]
    built = ROOT / "client" / "kodo" / "web" / "dist"
    assert shutil.which("node")
    index = (built / "index.html").read_text()
    first = {name for name in (path.name for path in built.iterdir()) if f'"{name}"' in index}
    todo, seen = set(first), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name.endswith(".js"):
            text = (built / name).read_text()
            imported = {
                other.name
                for other in built.glob("*.js")
                if f'from"./{other.name}"' in text or f'import"./{other.name}"' in text
            }
            todo |= imported - seen
    import gzip

    size = sum(len(gzip.compress((built / name).read_bytes(), 9)) for name in seen)
    assert origin
    assert len(seen) >= 2
    assert size <= BUDGET


async def test_a_connection_has_one_way_to_its_node(page: Page) -> None:
    """With several that work a browser moves between them, and waits many seconds for what comes on the former."""
    await page.evaluate(
        """(() => {
            window.seen = []
            const set = RTCPeerConnection.prototype.setRemoteDescription
            RTCPeerConnection.prototype.setRemoteDescription = function (description) {
                seen.push(description.sdp.match(/^a=candidate:/gm).length)
                return set.call(this, description)
            }
        })()"""
    )
    await page.click("link", "Tally")
    await page.find("button", "Launch")
    assert set(await page.evaluate("seen")) == {1}
