"""Which way a session's packets take, as the side sees it that was dialled: `/kodo/path/1`.

Python's dialler reads that in the answers to its own checks. A browser shows a page none of them, so a page asks
here whether its packets come over a relay, and where else this machine lets them in, and tells its browser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kodo.p2p.core.callframe import encode_frame

if TYPE_CHECKING:
    from kodo.p2p.net.stream import Stream

__all__ = ["PATH", "answer_path"]

PATH = "/kodo/path/1"


async def answer_path(stream: Stream) -> None:
    """Answer with one frame, `{route, relay?: [host, port], own?: [host, port]}`; nothing is asked for."""
    session = stream.session
    told: dict[str, Any] = {"route": session.route}
    over = session.let_in()
    if over is not None:
        told["relay"] = over.relay
        if over.own is not None:
            told["own"] = over.own
    await stream.write(encode_frame(told))
    await stream.aclose()
