"""The engine in Chromium, against a real node: dial, call, launch, follow, answer, lose and find again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client import Client
from kodo.node.app import Node
from kodo.node.executors.in_process import InProcessExecutor
from kodo.p2p.core.identity import Identity
from tests.support.page import Page, PageError
from tests.support.web_page import LID, node_at, target

STRANGER = str(Identity.from_seed(b"x" * 32).peer_id)


async def test_a_page_dials_a_node_and_calls_it(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const engine = openEngine()
        const node = engine.node(target)
        const state = await node.ask('node.state')
        const { peer_id } = await node.logins.whoami()
        return { name: state.name, peer: state.peer_id, status: node.status, route: node.path.route,
                 me: await engine.identity.peerId(), seen: peer_id }
        """,
        target=target(node),
    )
    assert (answer["name"], answer["peer"]) == ("here.example", node.peer_id)
    assert (answer["status"], answer["route"]) == ("connected", "lan")
    assert answer["seen"] == answer["me"]


async def test_the_library_in_place_of_webcrypto_is_the_same_to_a_node(page: Page, node: Node) -> None:
    # As in an insecure context, or a browser without Ed25519 and X25519.
    peers = await page.run(
        """
        Object.defineProperty(crypto, 'subtle', { value: undefined })
        const engine = openEngine()
        const { peer_id } = await engine.node(target).logins.whoami()
        return [peer_id, await engine.identity.peerId()]
        """,
        target=target(node),
    )
    assert peers[0] == peers[1]


async def test_the_identity_is_kept_and_nobody_can_read_it(page: Page, node: Node) -> None:
    first = await page.run("return await openEngine().identity.peerId()")
    await page.reload()
    second = await page.run(
        """
        const peer = await openEngine().identity.peerId()
        const open = indexedDB.open('kodo')
        await new Promise(resolve => open.onsuccess = resolve)
        const get = open.result.transaction('keys').objectStore('keys').get('identity')
        await new Promise(resolve => get.onsuccess = resolve)
        const { privateKey } = get.result.key.pair
        const read = await crypto.subtle.exportKey('pkcs8', privateKey).catch(error => error.name)
        return { peer, extractable: privateKey.extractable, read }
        """
    )
    assert second == {"peer": first, "extractable": False, "read": "InvalidAccessError"}


async def test_an_identity_that_can_be_moved_is_the_same_elsewhere(page: Page) -> None:
    answer = await page.run(
        """
        const here = openEngine({ database: 'a' }), there = openEngine({ database: 'b' })
        const before = await here.identity.peerId()
        const none = await here.identity.backup().catch(error => error.name)
        const backup = await here.identity.createMovable('correct horse')
        const moved = await here.identity.peerId()
        const wrong = await there.identity.restore(backup, 'wrong').catch(error => error.name)
        const restored = await there.identity.restore(backup, 'correct horse')
        const again = openEngine({ database: 'b' })
        const same = await again.identity.backup() === backup
        return { before, none, moved, wrong, restored, same, again: await again.identity.peerId(),
                 tells: backup.includes('correct') }
        """
    )
    assert answer["before"] != answer["moved"] == answer["restored"] == answer["again"]
    assert (answer["none"], answer["wrong"], answer["same"], answer["tells"]) == (
        "UsageError",
        "UsageError",
        True,
        False,
    )


async def test_a_locked_key_is_used_by_nobody_without_its_password(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const here = openEngine(), tab = openEngine(), name = error => error.name
        const early = await here.identity.lock('correct horse').catch(name)
        await here.identity.createMovable('correct horse')
        const peer = await here.identity.peerId()
        const wrong = await here.identity.lock('wrong').catch(name)
        const states = [await here.identity.lockState()]
        await tab.node(target).call('node.state')
        const told = new Promise(resolve => tab.identity.onChange(() => resolve()))
        await here.identity.lock('correct horse')
        await told
        states.push(await here.identity.lockState(), await tab.identity.lockState())
        const refused = []
        for (const each of [here, tab, openEngine()])
          for (const ask of [() => each.identity.peerId(), () => each.node(target).call('node.state')])
            refused.push(await ask().catch(name))
        const open = indexedDB.open('kodo')
        await new Promise(resolve => open.onsuccess = resolve)
        const get = open.result.transaction('keys').objectStore('keys').get('identity')
        await new Promise(resolve => get.onsuccess = resolve)
        const stored = Object.keys(get.result)
        const shut = await here.identity.unlock('wrong').catch(name)
        await here.identity.unlock('correct horse')
        await here.node(target).call('node.state')
        states.push(await here.identity.lockState(), await tab.identity.lockState())
        const same = await here.identity.peerId() === peer
        here.identity.lockNow()
        states.push(await here.identity.lockState())
        await here.identity.removeLock('correct horse')
        const kept = await openEngine().identity.peerId() === peer
        await here.identity.lock('correct horse')
        await here.identity.forget()
        const other = await here.identity.peerId() !== peer
        return { early, wrong, states, refused, stored, shut, same, kept, other }
        """,
        target=target(node),
    )
    assert answer == {
        "early": "UsageError",
        "wrong": "UsageError",
        "states": ["open", "locked", "locked", "unlocked", "locked", "locked"],
        "refused": ["LockedError"] * 6,
        "stored": ["backup"],
        "shut": "UsageError",
        "same": True,
        "kept": True,
        "other": True,
    }


async def test_a_run_is_launched_and_followed_to_its_end(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const node = openEngine().node(target)
        const inputs = { n: 3000, size: 1000 }
        const { fid } = await node.ask('run.launch', { path: 'flows.count', inputs, key: 'once' })
        const run = node.follow(fid), told = []
        run.on(news => told.push(news.type === 'events' ? news.events.length : news.status))
        const view = await run.done()
        const seqs = run.events.map(event => event.seq)
        return { state: view.state, final: view.final.result, flow: view.flow.name,
                 count: run.events.length, last: view.lastSeq, gapless: seqs.every((seq, i) => seq === i + 1),
                 counted: told.filter(Number.isInteger).reduce((a, b) => a + b, 0),
                 statuses: told.filter(each => typeof each === 'string') }
        """,
        target=target(node),
    )
    assert answer["state"] == "done"
    assert answer["final"] == 3000
    assert answer["count"] == answer["last"] == answer["counted"] == 3004
    assert answer["gapless"]
    assert answer["flow"] == "count"
    assert answer["statuses"] == ["following", "over"]


async def test_a_run_is_followed_from_where_it_was_left(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const node = openEngine().node(target)
        const { fid } = await node.ask('run.launch', { path: 'flows.count', inputs: { n: 5 } })
        await node.follow(fid).done()
        const rest = node.follow(fid, { after: 6 })
        await rest.done()
        return rest.events.map(event => [event.seq, event.event])
        """,
        target=target(node),
    )
    assert answer == [[7, "result"], [8, "result"], [9, "final"]]


async def test_the_oldest_of_many_events_are_let_go(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const node = openEngine().node(target)
        const { fid } = await node.ask('run.launch', { path: 'flows.count', inputs: { n: 3000 } })
        const run = node.follow(fid, { keep: 500 })
        const view = await run.done()
        const { events, dropped } = run
        return { kept: events.length, dropped, first: events[0].seq, last: events.at(-1).event, seen: view.lastSeq }
        """,
        target=target(node),
    )
    assert 1 <= answer["kept"] <= 500 + 512
    assert answer["first"] == answer["dropped"] + 1
    assert answer["dropped"] + answer["kept"] == answer["seen"] == 3004
    assert answer["last"] == "final"


async def test_a_login_is_kept_for_the_next_session_and_ends_with_logout(
    page: Page, tmp_path: Path, executor: InProcessExecutor
) -> None:
    async with (
        node_at(tmp_path / "home", executor, auth="local") as node,
        Client(home=tmp_path / "home") as operator,
    ):
        remote = await operator.node(target(node)["addrs"][0])
        await remote.request("user.add", {"name": "ana", "password": "correct horse"})
        await remote.request("user.add", {"name": "ben"})
        answer = await page.run(
            """
            const engine = openEngine(), node = engine.node(target)
            const refused = () => node.call('node.state').then(() => null, error => error.reason)
            const before = await refused()
            const wrong = await node.logins.password('ana', 'battery').catch(error => error.reason)
            const told = await node.logins.password('ana', 'correct horse')
            node.close()
            const next = (await node.logins.whoami()).user
            const again = (await openEngine().node(target).logins.whoami()).user
            await node.logins.logout()
            node.close()
            return { before, wrong, told, next, again, after: await refused(), me: await engine.identity.peerId() }
            """,
            target=target(node),
        )
        enrolled = await remote.request("user.enrol", {"name": "ben", "peer_id": answer["me"]})
        user = await page.run(
            "return (await openEngine().node(target).logins.code(code)).user",
            target=target(node),
            code=enrolled["code"],
        )
    assert (answer["before"], answer["wrong"], answer["after"]) == ("login-needed", "bad-login", "login-needed")
    assert (answer["told"]["user"], answer["next"], answer["again"], user) == ("ana", "ana", "ana", "ben")
    assert "token" not in answer["told"], "a token is kept, and shown nowhere"


async def test_a_lock_is_answered_and_a_refusal_says_why(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const node = openEngine().node(target)
        const { fid } = await node.ask('run.launch', { path: 'flows.ask' })
        const run = node.follow(fid)
        await new Promise(resolve => run.on(() => run.view.locks.size && resolve()))
        const [lock] = run.view.locks.values()
        const refusal = async candidate => {
          try { await node.call('lock.answer', { fid, lid, candidate }) }
          catch (error) { return [error.name, error.code, error.reason, error.data] }
        }
        const wrong = await refusal(5), denied = await refusal('no')
        const { unlock } = await node.ask('lock.answer', { fid, lid, candidate: 'yes', key: 'k' })
        const late = await refusal('yes')
        const view = await run.done()
        return { title: lock.title, wrong, denied, unlock: unlock.answer, late, state: view.state,
                 result: view.final.result, open: view.locks.size }
        """,
        target=target(node),
        lid=LID,
    )
    assert answer["wrong"][:3] == ["CallError", 400, "bad-candidate"]
    assert answer["denied"][1:3] == [409, "denied"]
    assert answer["denied"][3]["reasons"] == ["yes is the only answer"]
    assert answer["late"][1:3] == [410, "answered"]
    assert (answer["unlock"], answer["state"], answer["result"], answer["open"]) == ("yes", "done", "yes", 0)


async def test_values_go_there_and_back_to_the_letter(page: Page, node: Node) -> None:
    same = await page.run(
        """
        const value = JSON.parse('{"__proto__": {"a": 1}, "constructor": 2, "none": null}')
        value.text = '\\ufeff\\u0000\\ud83d\\ude00'
        value.large = [2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)]
        value.numbers = [0, -1, 1.5, 2 ** 53 - 1, 1e300]
        const node = openEngine().node(target)
        const { fid } = await node.ask('run.launch', { path: 'flows.mirror', inputs: { value } })
        const view = await node.follow(fid).done()
        const write = value => JSON.stringify(value, (_, each) => typeof each === 'bigint' ? each + 'n' : each)
        const sorted = value => Object.fromEntries(Object.keys(value).sort().map(key => [key, value[key]]))
        return [write(Object.entries(view.final.result).sort()), write(Object.entries(value).sort())]
        """,
        target=target(node),
    )
    assert same[0] == same[1]


async def test_a_restarted_node_is_found_again_and_its_run_followed_on(
    page: Page, tmp_path: Path, executor: InProcessExecutor
) -> None:
    async with node_at(tmp_path / "home", executor, keep_runs=True) as node:
        seen = await page.run(
            """
            const node = openEngine().node(target)
            const { fid } = await node.ask('run.launch', { path: 'flows.wait' })
            globalThis.run = node.follow(fid), globalThis.told = []
            run.on(news => news.type === 'status' && told.push(news.status))
            await new Promise(resolve => run.on(() => run.events.length > 6 && resolve()))
            return run.events.length
            """,
            target=target(node),
        )
    await page.run("while (run.status !== 'away') await new Promise(resolve => run.on(resolve))")
    async with node_at(tmp_path / "home", executor, keep_runs=True):
        answer = await page.run(
            """
            const enough = () => run.view.over || run.events.length > seen + 20
            await new Promise(resolve => run.on(() => enough() && resolve()))
            await run.node.call('run.kill', { fid: run.fid })
            const view = await run.done()
            const gapless = run.events.every(({ seq }, i) => seq === i + 1)
            return { told, gapless, state: view.state }
            """,
            seen=seen,
        )
    assert answer["gapless"]
    assert answer["state"] == "error"
    assert answer["told"][:3] == ["following", "away", "following"]
    assert answer["told"][-1] == "over"


async def test_somebody_else_in_place_of_the_node_is_refused_with_both_ids(page: Page, node: Node) -> None:
    addrs = [address.split("/p2p/")[0] for address in target(node)["addrs"]]
    answer = await page.run(
        """
        try { await openEngine().node({ peerId: stranger, addrs }).connect() }
        catch (error) { return [error.name, error.expected, error.found] }
        """,
        stranger=STRANGER,
        addrs=addrs,
    )
    assert answer == ["IdentityError", STRANGER, node.peer_id]


async def test_a_name_is_pinned_and_another_peer_of_that_name_is_refused(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const engine = openEngine()
        await engine.node({ ...target, name: 'here.example' }).connect()
        const pin = await engine.pins.get('here.example')
        const refused = await engine.node({ peerId: stranger, addrs: target.addrs, name: 'here.example' }).connect()
          .catch(error => [error.name, error.expected, error.found, error.message])
        await engine.pins.remove('here.example')
        return { pin, refused, left: (await engine.pins.list()).length }
        """,
        target=target(node),
        stranger=STRANGER,
    )
    assert answer["pin"] == node.peer_id
    assert answer["refused"][:3] == ["IdentityError", node.peer_id, STRANGER]
    assert node.peer_id in answer["refused"][3]
    assert STRANGER in answer["refused"][3]
    assert answer["left"] == 0


async def test_a_node_is_found_among_addresses_that_are_dead_or_no_longer_its_own(page: Page, node: Node) -> None:
    [address] = target(node)["addrs"]
    old = address.replace(
        address.split("/certhash/")[1].split("/")[0], "uEiAYHyYtNDtCSVBXXmVsc3qBiI-WnaSrsrnAx87V3OPq8Q"
    )
    dead = [address.replace("127.0.0.1", f"127.0.0.{number}").replace("/udp/", "/udp/1") for number in range(2, 5)]
    status = await page.run(
        "const node = openEngine().node({ peerId, addrs }); await node.connect(); return node.status",
        peerId=node.peer_id,
        addrs=["/ip4/192.0.2.1/tcp/1", old, *[each for each in dead if int(each.split("/")[4]) < 65536], address],
    )
    assert status == "connected"


async def test_a_node_that_moved_is_looked_for(page: Page, node: Node) -> None:
    answer = await page.run(
        """
        const asked = []
        const findAddresses = async peerId => { asked.push(peerId); return target.addrs }
        const node = openEngine({ findAddresses }).node({ peerId: target.peerId, addrs: [] })
        await node.connect()
        return [node.status, asked]
        """,
        target=target(node),
    )
    assert answer == ["connected", [node.peer_id]]


async def test_a_call_that_is_given_up_ends_at_once(page: Page, node: Node) -> None:
    with pytest.raises(PageError, match="enough"):
        await page.run(
            """
            const node = openEngine().node(target)
            const { fid } = await node.ask('run.launch', { path: 'flows.ask' })
            const abort = new AbortController()
            setTimeout(() => abort.abort(new Error('enough')), 50)
            for await (const item of node.stream('run.stream', { fid }, { signal: abort.signal }));
            """,
            target=target(node),
        )
