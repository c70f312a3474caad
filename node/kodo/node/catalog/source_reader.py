"""`python -m kodo.node.catalog.source_reader`: read sources under the account that imports them.

stdin: `{"paths": [file], "most": bytes}`. stdout: `{"contents": {path: base64}}`, without those that this account
cannot read. No code of flows runs here.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kodo.node.catalog.user_code import ask_process
from kodo.p2p.errors import KodoError
from kodo.p2p.net.files import read_regular

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = ["main", "read_as", "read_sources"]

_SECONDS = 60.0
_PATH_BYTES = 4096


def read_sources(paths: Iterable[str], most_bytes: int) -> dict[str, bytes]:
    """Return what files hold, up to `most_bytes` together, without what is too large or cannot be read. Blocks."""
    contents: dict[str, bytes] = {}
    for path in paths:
        try:
            contents[path] = read_regular(Path(path), most_bytes)
        except (OSError, ValueError):
            continue
        most_bytes -= len(contents[path])
    return contents


async def read_as(account: Account, paths: Collection[str], most_bytes: int) -> dict[str, bytes]:
    """Read sources as another account: a link there leads to nothing that it may not read. See `read_sources`.

    Raises:
        KodoError: its process gave no answer.
    """
    answer = await ask_process(
        "kodo.node.catalog.source_reader",
        {"paths": list(paths), "most": most_bytes},
        seconds=_SECONDS,
        most_bytes=most_bytes * 3 // 2 + _PATH_BYTES * (len(paths) + 1),
        account=account,
    )
    contents = answer.get("contents")
    if not isinstance(contents, Mapping):
        raise KodoError("the process that reads sources gave no answer")
    try:
        return {path: base64.b64decode(contents[path]) for path in paths if path in contents}
    except (TypeError, binascii.Error):
        raise KodoError("the process that reads sources gave no answer") from None


def main() -> None:
    """Answer the one request on stdin."""
    request = json.load(sys.stdin)
    contents = read_sources(request["paths"], request["most"])
    json.dump({"contents": {path: base64.b64encode(data).decode() for path, data in contents.items()}}, sys.stdout)


if __name__ == "__main__":
    main()
