"""Links to runs and invitations, as commands show them: for `koco`, for a page, as QR codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["PageHost", "page_link", "show_link"]

PageHost = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="URL",
        help="Make a link that opens in kodo's page at this address: a registry's, or that of `koco web`.",
    ),
]


def page_link(context: Context, link: str, at: Callable[[str], str], host: str | None) -> str | None:
    """Return a link for a browser: at `host`, else at an https registry, else at this machine's own page.

    Args:
        at: writes the link for a page.
    """
    from kodo.web.port import ADDRESS, last_port

    if host is not None:
        return at(host)
    if link.startswith("https://"):
        return link
    port = last_port(context.loaded.home)
    return None if port is None else at(f"http://{ADDRESS}:{port}")


def show_link(context: Context, link: str, page: str | None, host: str | None, opens: str, *, qr: bool) -> None:
    """Show a link, how it is opened, and where it opens in a browser.

    Args:
        page: as `page_link` says, for this `host`.
        opens: says how `koco` opens it.
    """
    context.show(link if host is None or page is None else page)
    context.say(opens)
    if qr:
        from kodo.cli.qr import drawn_for

        # A phone has no koco: what it can open is the page.
        print(drawn_for(page if page is not None and (host is not None or page == link) else link))
    if page is not None and host is None and page != link:
        context.say(f"in a browser of this machine, while `koco web` runs: {page}")
    if host is not None and not _is_private(host):
        context.say("warning: without https anybody on the way can alter that page; prefer an https address")


def _is_private(host: str) -> bool:
    # Imported here: it brings what speaks with registries, and few links name a page.
    from kodo.registry.client.signed_requests import is_private

    return is_private(host)
