"""Connections of an HTTP server: how many there are, of whom, and for how long one may say nothing and take nothing.

Every connection is counted from the moment that it is accepted, its TLS handshake included, so that neither half
handshakes nor half request heads nor answers that nobody takes use up what this process may have open. What is to be
done for it waits in the line of its source (`kodo.p2p.net.turns`), reading and TLS included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import Context
from functools import partial
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from kodo.p2p.core.hosts import THIS_MACHINE, source_of
from kodo.p2p.net.turns import line_of

__all__ = ["HEAD_S", "TAKE_S", "Connection", "Door", "attended", "serve"]

HEAD_S = 10.0
"""Seconds for a TLS handshake, and for a request's head from its first byte on, or from the connection's begin."""

TAKE_S = 30.0
"""Seconds in which whoever asked takes something of the answer."""

_MOST = 16_384
"""Connections: 10,000 nodes may wait at the rendezvous, by one each."""

_PAUSE_S = 0.1
"""Seconds until the next try when this process can open no more."""

logger = logging.getLogger(__name__)


class Door:
    """Who is inside, by source. One event loop.

    A quarter of the places is for one source. This machine, and each proxy that is named, may speak for many, so they
    have all but a quarter, which is left for those who come directly.

    Args:
        descriptors: how many files and sockets this process may have open; a quarter stays for all but connections.
        proxies: addresses of proxies.
    """

    def __init__(self, descriptors: int, proxies: Iterable[str] = ()):
        self.most = min(_MOST, descriptors * 3 // 4)
        self.most_each = max(self.most // 4, 1)
        self._most_of_many = max(self.most - self.most // 4, 1)
        self._proxies = set(map(source_of, proxies))
        self._speak_for_many = {THIS_MACHINE, *self._proxies}
        self._inside: Counter[str] = Counter()
        self._all = 0

    def enter(self, source: str) -> bool:
        """Admit one more, unless there are too many in all, or of this source; return whether it was."""
        each = self._most_of_many if source in self._speak_for_many else self.most_each
        if self._all >= self.most or self._inside[source] >= each:
            self._inside += Counter()  # forgets who has none
            return False
        self._inside[source] += 1
        self._all += 1
        return True

    def line(self, source: str) -> Context | None:
        """Return the context of what is done for a connection; None: of a named proxy's each request has its own."""
        return None if source in self._proxies else line_of(asyncio.get_running_loop(), source)

    def leave(self, source: str) -> None:
        """Count one that came in out again."""
        self._all -= 1
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]


class _Counted:
    """A transport that knows how many bytes were given to it; all else is the transport's own."""

    __slots__ = ("_transport", "given")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.given = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self.given += len(data)
        self._transport.write(data)

    def writelines(self, pieces: Iterable[Any]) -> None:
        pieces = list(pieces)
        self.given += sum(map(len, pieces))
        self._transport.writelines(pieces)

    @property
    def max_size(self) -> int:
        """How many bytes asyncio reads of a socket at once; its TLS has no such bound."""
        return int(self._transport.max_size)  # type: ignore[attr-defined]

    @max_size.setter
    def max_size(self, size: int) -> None:
        self._transport.max_size = size  # type: ignore[attr-defined]

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken."""
        return self._transport.get_write_buffer_size()


class Connection(web.RequestHandler):
    """One connection, with deadlines for heads and for answers; those for bodies are the application's.

    Args:
        left: called once when it is over.
    """

    __slots__ = ("_answering", "_counted", "_due", "_left", "_unsent")

    def __init__(self, *args: Any, left: Callable[[], None], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._left = left
        self._due: asyncio.TimerHandle | None = None
        self._unsent: asyncio.TimerHandle | None = None
        self._counted: _Counted | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first head is due."""
        self._counted = _Counted(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, self._counted))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes: of a body, or else of a head, which is due from its first byte on."""
        if not self._answering:
            self._expect_head()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        for timer in (self._due, self._unsent):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._left()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what cannot be read without a word in the log.

        Anybody may send that as often as he likes, and its URL may hold what somebody searches.
        """
        if status >= 500 or not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text=f"{message or 'the request cannot be read'}\n")
        response.force_close()
        return response

    def begin(self) -> None:
        """A head is there, and its request is being answered."""
        self._answering = True
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def end(self) -> None:
        """The answer is on its way."""
        self._answering = False
        if self._unsent is None and self.transport is not None:
            self._unsent = self._loop.call_later(TAKE_S, self._look, None)

    def _expect_head(self) -> None:
        if self._due is None:
            self._due = self._loop.call_later(HEAD_S, self._abort)

    def _look(self, taken_before: int | None) -> None:
        """End the connection when nothing was taken since the last look, of whichever answers."""
        self._unsent = None
        if self.transport is None or self._counted is None:
            return
        unsent = self._counted.unsent
        taken = self._counted.given - unsent
        if unsent and taken == taken_before:
            self._abort()
        elif unsent:
            self._unsent = self._loop.call_later(TAKE_S, self._look, taken)

    def _abort(self) -> None:
        self._due = None
        if self.transport is not None:
            self.transport.abort()


@web.middleware
async def attended(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Inform a request's connection when it is answered: the outermost middleware."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        answer: web.StreamResponse = await handler(request)
        return answer
    connection.begin()
    try:
        answer = await handler(request)
        return answer
    finally:
        connection.end()


@contextlib.asynccontextmanager
async def serve(
    server: web.Server, listener: socket.socket, door: Door, tls: ssl.SSLContext | None, **options: Any
) -> AsyncIterator[None]:
    """Accept connections at `listener` until the end of the block; those that are open stay the server's.

    Args:
        server: of the application's runner.
        options: of each connection, as `web.RequestHandler` takes them.
    """
    beginning: set[asyncio.Task[None]] = set()
    accepting = asyncio.create_task(_accept(server, listener, door, tls, options, beginning))
    try:
        yield
    finally:
        tasks = {accepting, *beginning}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _accept(
    server: web.Server,
    listener: socket.socket,
    door: Door,
    tls: ssl.SSLContext | None,
    options: dict[str, Any],
    beginning: set[asyncio.Task[None]],
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, address = await loop.sock_accept(listener)
        except OSError as error:
            logger.warning("no connection can be accepted just now: %s", error.strerror)
            await asyncio.sleep(_PAUSE_S)
            continue
        source = source_of(address[0])
        if door.enter(source):
            beginning_one = _begin(server, accepted, partial(door.leave, source), tls, options)
            task = asyncio.create_task(beginning_one, context=door.line(source))
            beginning.add(task)
            task.add_done_callback(beginning.discard)
        else:
            accepted.close()
        # Waiting for what is there already gives nobody else a turn: who connects without end would keep the loop.
        await asyncio.sleep(0)


async def _begin(
    server: web.Server,
    accepted: socket.socket,
    left: Callable[[], None],
    tls: ssl.SSLContext | None,
    options: dict[str, Any],
) -> None:
    loop = asyncio.get_running_loop()
    deadline = {} if tls is None else {"ssl_handshake_timeout": HEAD_S}
    try:
        await loop.connect_accepted_socket(
            lambda: Connection(server, loop=loop, left=left, **options), accepted, ssl=tls, **deadline
        )
    except BaseException as error:
        # The handshake failed, so there is no connection that could tell of its end.
        left()
        accepted.close()
        if not isinstance(error, OSError):
            raise
