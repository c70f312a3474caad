"""Run a command where another account can reach this Python and this repository, whatever lies on the way to them.

`way(folder)` gives what is to be put in front of a command; nothing where everybody can reach all of it. Else the
command runs in a mount namespace of its own, in which each folder that not everybody may enter is hidden by an empty
one that all may, with only what leads on in it. Nothing changes outside. It needs root, `unshare` and `mount`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def needed() -> list[Path]:
    """What runs: the virtual environment, its Python, and the repository."""
    return [Path(sys.prefix), Path(sys.base_prefix), ROOT]


def closed(path: Path) -> Path | None:
    """The first folder on the way to `path` that not everybody may enter."""
    return next((each for each in [*reversed(path.parents), path] if not each.stat().st_mode & 0o001), None)


def way(folder: Path) -> list[str]:
    """What stands before a command; `folder` is an empty one for what is hidden."""
    if all(closed(path) is None for path in needed()):
        return []
    here = str(Path(__file__).resolve())
    return ["unshare", "--mount", "--propagation", "private", sys.executable, here, str(folder)]


def main() -> None:
    """Open the way, then become the command."""
    hold, command = Path(sys.argv[1]), sys.argv[2:]
    while True:
        shut = next((found for path in needed() if (found := closed(path)) is not None), None)
        if shut is None:
            break
        kept = Path(tempfile.mkdtemp(dir=hold))
        names = {path.relative_to(shut).parts[0] for path in needed() if path != shut and path.is_relative_to(shut)}
        subprocess.run(["mount", "--rbind", shut, kept], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711", "tmpfs", shut], check=True)
        for name in names:
            (shut / name).mkdir()
            subprocess.run(["mount", "--rbind", kept / name, shut / name], check=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
