"""Files that are made once, with and without hard links, and read by their owner only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import make_once
from kodo.p2p.net.keystore import read_private, write_private


def _refuse(number: int) -> Callable[[Path, Path], None]:
    def link(old: Path, new: Path) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("link", [os.link, _refuse(errno.EPERM), _refuse(errno.EOPNOTSUPP), _refuse(errno.ENOSYS)])
def test_a_file_is_made_once_also_where_there_are_no_hard_links(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "key"
    assert make_once(path, b"first", link=link)
    assert not make_once(path, b"second", link=link)
    assert read_private(path) == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_what_cannot_be_given_its_name_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        make_once(tmp_path / "key", b"x", link=_refuse(errno.EIO))
    assert os.listdir(tmp_path) == []


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to(tmp_path / "elsewhere")
    assert not make_once(path, b"x")
    assert not make_once(path, b"x", link=_refuse(errno.EPERM))
    assert not (tmp_path / "elsewhere").exists()


def test_what_others_may_read_is_refused_and_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_private(tmp_path / "key") is None
    write_private(tmp_path / "key", b"x")
    (tmp_path / "key").chmod(0o604)
    with pytest.raises(UsageError, match="chmod 600"):
        read_private(tmp_path / "key")
