"""In whose line waits what is done for a peer: its source's, and once it is admitted by an account, the account's."""

from __future__ import annotations

import asyncio

from kodo.p2p.net.calls import request
from kodo.p2p.net.session import Session
from kodo.p2p.net.turns import FairLoop, Line
from kodo.p2p.net.turns import _line as current_line
from tests.support.peers import make_pair


def test_calls_of_a_session_wait_in_the_line_of_its_account_until_it_is_nobodys() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FairLoop)
        sessions: list[Session] = []
        found: list[Line | None] = []

        async def admit(session: Session) -> None:
            session.admitted = True
            sessions.append(session)

        async with make_pair("webrtc", admit=admit) as pair:
            answer = pair.answer

            async def noting(asked: object) -> object:
                found.append(current_line.get())
                return await answer(asked)  # type: ignore[arg-type]

            pair.calls._handler = noting
            client = await pair.client.connect(pair.addresses)
            await request(client, "echo")
            [at_server] = sessions
            source = found[0]
            at_server.account = "ana"
            await request(client, "echo")
            at_server.admitted = False
            await request(client, "echo")
            client.account = "ben"  # a node that was dialled is served for nobody
            assert client.account is None
        account = loop.line("ana")
        assert source is not None
        assert source is not account
        assert found == [source, account, source]
        assert [line.known for line in found if line is not None] == [False, True, False]

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())
