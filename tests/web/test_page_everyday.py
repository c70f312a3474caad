"""What people do with flows day by day in the page: invite others, schedule, launch for many rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.page import Page
from tests.support.page_world import NARROW, World, looks_well, until_saved

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def page(opened: Page) -> Page:
    return opened


async def test_an_invitation_lets_somebody_launch_answer_and_download_until_it_ends(
    world: World, page: Page, tmp_path: Path
) -> None:
    await page.click("link", "Tally")
    await page.find("button", "Launch")
    await page.fill("textbox", "N", "x")
    await page.click("button", "Invite…")
    await page.sees("This is not a whole number.")
    await page.fill("textbox", "N", "3")
    await page.click("button", "Invite…")
    await page.fill("textbox", "How many runs it may launch", "2")
    await page.fill("textbox", "Message for whoever opens the link", "Only a try")
    await looks_well(page)
    await page.click("button", "Make the invitation")
    await page.click("button", "Show as a QR code")
    await page.find("image", "The link as a QR code")
    await looks_well(page)
    link = await page.evaluate("document.querySelector('dialog code').textContent")
    assert link.startswith(f"{world.origin}#open=")
    await page.press("Escape")

    other = await world.browser.page(link, context=await world.browser.context())
    await other.sees("Only a try")
    assert "open=" not in await other.evaluate("location.href")
    assert not any("open=" in each for each in other.requests)
    await looks_well(other)
    await other.fill("textbox", "N", "4")
    await other.click("checkbox", "Ask")
    await other.click("button", "Launch")
    await other.click("checkbox", "Approved", within=("region", "Questions"))
    await other.click("button", "Answer")
    await other.sees("Counted to 4")
    assert await other.all("button", "Share") == await other.all("button", "Delete") == []
    await other.downloads(tmp_path)
    await other.click("button", "Download all")
    await other.sees("verified")
    await until_saved(tmp_path / "tally.txt")
    await other.reload()  # the run is found again by the link that this tab keeps
    await other.sees("Counted to 4")
    await other.click("link", "The invitation")
    await other.sees("1 of 2 launches made")
    await other.click("button", "Launch")
    await other.sees("Counted to 3")
    await other.click("link", "The invitation")
    await other.sees("This invitation is used up")

    await page.click("link", "Runs")
    await page.click("link", "Invitations")
    await page.sees("used-up")
    await looks_well(page)
    await page.click("button", "End it: Tally")
    await page.click("button", "End it")
    await page.sees("revoked")
    await other.evaluate("document.querySelector('main li a').click()")
    await other.sees("This link was revoked")
    assert other.complaints == []
    await other.close()


async def test_what_was_filled_in_is_scheduled_paused_and_deleted(world: World, page: Page) -> None:
    await page.click("link", "Tally")
    await page.find("button", "Launch")
    await page.click("button", "Schedule…")
    await page.sees("This is needed.")
    await page.fill("textbox", "N", "3")
    await page.click("button", "Schedule…")
    await page.choose("When", "Cron fields")
    await page.fill("textbox", "Fields", "61 * * * *")
    await page.click("button", "Schedule it")
    await page.find("alert")
    await page.choose("When", "Monday to Friday")
    await page.fill("textbox", "Time zone", "Europe/Berlin")
    await looks_well(page)
    await page.click("button", "Schedule it")
    await page.sees("It is due next at:")
    await page.click("link", "Schedules")
    await page.sees("Monday to Friday, 07:00 (Europe/Berlin)")
    await page.sees("not yet")
    await looks_well(page)
    await page.click("button", "Pause: Tally")
    await page.sees("paused")
    await page.click("button", "Resume: Tally")
    await page.find("button", "Pause: Tally")
    await page.click("button", "Delete: Tally")
    await page.click("button", "Delete")
    await page.sees("Nothing is scheduled")


async def test_rows_are_launched_a_run_each_and_found_as_one_group(page: Page) -> None:
    good = '{"title": "Trip", "size": "large", "place": {"city": "Ulm", "zip": 89073}}'
    await page.click("link", "Nested form")
    await page.find("button", "Launch")
    await page.click("button", "Many…")
    rows = "Rows: a table with the names of inputs as its first line, or JSON"
    await page.fill("textbox", rows, f"[{good}, 1, {good.replace('Trip', 'ab')}]")
    await page.sees("1 row cannot be launched")
    await page.sees("This is not an object of names and values.")
    await looks_well(page)
    await page.fill("textbox", "Tag of these runs", "a few")
    await page.click("button", "Launch 2 runs")
    await page.sees("1 run is launched")
    await page.sees("1 row was not launched")
    await page.sees("title: it does not fit: minLength")  # as the node says
    await looks_well(page)
    await page.click("link", "Show these runs")
    await page.gives("location.hash", "#/runs?tag=a+few")
    await page.find("region", "Runs tagged a few")
    await page.wait("document.querySelector('.state.done') !== null")
    await page.gives("document.querySelectorAll('tbody tr a[href^=\"#/run/\"]').length", 1)
    await looks_well(page)
    await page.click("checkbox", "Select all")
    await page.click("button", "Delete (1)")
    await page.click("button", "Delete for good")
    await page.sees("No run has this tag")


async def test_rows_given_again_after_a_reload_are_launched_once(page: Page) -> None:
    async def given() -> None:
        await page.find("button", "Launch")
        await page.click("button", "Many…")
        rows = "Rows: a table with the names of inputs as its first line, or JSON"
        await page.fill("textbox", rows, '[{"n": 4711}, {"n": 4712}]')

    await page.click("link", "Tally")
    await given()
    await page.fill("textbox", "Tag of these runs", "once")
    await page.click("button", "Launch 2 runs")
    await page.sees("2 runs are launched")
    assert "4711" not in await page.evaluate("JSON.stringify({...sessionStorage, ...localStorage})")

    await page.reload()
    await given()
    await page.sees("You have begun to launch these rows")
    await looks_well(page)
    await page.click("button", "Launch 2 runs")
    await page.sees("2 runs are launched")
    await page.click("link", "Show these runs")
    await page.find("region", "Runs tagged once")
    await page.gives("document.querySelectorAll('tbody tr a[href^=\"#/run/\"]').length", 2)


async def test_runs_are_found_by_their_days_and_several_are_seen_to_at_once(page: Page, tmp_path: Path) -> None:
    await page.click("link", "Tally")
    await page.find("button", "Launch")
    await page.fill("textbox", "N", "3")
    await page.click("button", "Launch")
    await page.sees("Counted to 3")
    await page.click("link", "Runs")
    await page.find("checkbox", "Select the run of Tally")

    async def between(*days: str) -> None:
        for index, day in enumerate(days):
            await page.evaluate(
                f"(input => {{ input.value = '{day}'; input.dispatchEvent(new Event('change', {{bubbles: true}})) }})"
                f"(document.querySelectorAll('input[type=date]')[{index}])"
            )

    await between("2001-02-03", "2001-02-03")
    await page.sees("No run fits this filter")
    await looks_well(page)
    await page.wait("!document.querySelector('.skeleton')")  # its nodes have answered meanwhile: there is none
    await between("2001-02-03", "")
    await page.find("checkbox", "Select the run of Tally")
    await page.downloads(tmp_path)
    await page.click("checkbox", "Select the run of Tally")
    await looks_well(page)
    await page.click("button", "Download (1)")
    await until_saved(tmp_path / "tally.txt")
    await page.gives("document.querySelector('.selection')", None)
    await page.click("checkbox", "Select the run of Tally")
    await page.click("button", "Acknowledge (1)")
    await page.gives("document.querySelector('.selection')", None)
    await page.click("checkbox", "Select the run of Tally")
    await page.find("button", "Download (1)")
    await page.wait("![...document.querySelectorAll('button')].some(each => each.innerText === 'Acknowledge (1)')")


async def test_a_question_is_answered_on_a_phone_from_the_inbox(world: World, page: Page) -> None:
    await world.launched(page, "Tally", N="5", Ask=True)
    await page.find("checkbox", "Approved", within=("region", "Questions"))
    phone = await world.same_profile(page, world.url)
    await phone.resize(NARROW, 740)
    await phone.wait("document.querySelector('nav .count')?.textContent === '1'")
    await phone.click("link", "Inbox 1")
    await phone.find("link", "Is that enough?")
    named = "[...document.querySelectorAll('main li [title]')].map(each => [each.textContent, each.title])"
    assert ["Tally", "pages.tally"] in await phone.evaluate(named)
    await phone.click("link", "Is that enough?")
    await phone.click("checkbox", "Approved", within=("region", "Questions"))
    await phone.click("button", "Answer")
    await phone.sees("Counted to 5")
    assert await phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    await looks_well(phone)
    await page.sees("Counted to 5")
    assert phone.complaints == []
    await phone.close()
