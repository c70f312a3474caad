"""A copy of a registry's file, taken while it is used: one consistent state, checked before it gets its name."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import clear_parts, whole_file
from kodo.sqlite.copy import copy_database

__all__ = ["back_up"]


def back_up(database: Path, target: Path) -> int:
    """Copy `database` to `target`, replacing what is there; give the bytes of the copy. Blocks.

    The registry, in this process or another, goes on reading and writing meanwhile. To restore, stop it and put the
    copy in the place of its file, without the files `-wal` and `-shm` beside that.

    Raises:
        UsageError: there is no registry's file, it or the copy is damaged, or the copy cannot be written.
    """
    try:
        if not database.is_file():
            raise UsageError(f"there is no registry database {database}")
        clear_parts(target.absolute().parent)
        with whole_file(target, durable=True) as file:
            copy_database(database, file.name, _be_another)
            return file.seek(0, os.SEEK_END)
    except sqlite3.Error as error:
        raise UsageError(f"{database} cannot be copied to {target}: {error}") from error
    except OSError as error:
        raise UsageError(f"the copy {target} cannot be written: {error.strerror or error}") from error


def _be_another(copy: sqlite3.Connection) -> None:
    # A copy that is put in place counts changes again that others have counted: it is another file to them.
    if copy.execute("SELECT 1 FROM sqlite_schema WHERE name = 'mesh_self'").fetchone():
        copy.execute("UPDATE mesh_self SET epoch = randomblob(16)")
