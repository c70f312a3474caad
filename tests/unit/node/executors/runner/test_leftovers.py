"""What becomes of files that a flow left in the run's folder."""

import os

import pytest

from kodo.flow import flow
from kodo.node.executors.runner.leftovers import handle_leftovers, left_in
from kodo.p2p.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    for name in ("report.md", "data/a.csv", ".cache/x", ".env", "__pycache__/m.pyc", "memory/k", "delegated/r/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_files_of_the_flow_are_found_and_nothing_hidden_linked_or_kept_elsewhere(folder):
    assert left_in(folder) == [("report.md", 5), ("data/a.csv", 5)]
    about = (folder / "report.md").stat()
    assert left_in(folder, {(about.st_dev, about.st_ino)}) == [("data/a.csv", 5)]


def handled(folder, wanted, write):
    warnings = []
    handle_leftovers(folder, wanted, set(), write, warnings.append)
    return warnings


def test_what_was_left_is_told_once_with_how_to_keep_it(folder):
    (warning,) = handled(folder, "", pytest.fail)
    assert "2 files of 10 bytes in all were left" in warning
    assert "report.md, data/a.csv" in warning
    assert "output.write(name, Path(name))" in warning
    assert handled(folder / "data", "", pytest.fail)[0].startswith("one file of 5 bytes was left")


def test_a_flow_that_wants_its_folder_kept_gets_outputs(folder):
    written = {}
    assert handled(folder, "folder", written.__setitem__) == []
    assert written == {name: folder / name for name in ("report.md", "data/a.csv")}


def test_a_file_that_cannot_be_an_output_is_told(folder):
    def refuse(name, path):
        raise UsageError("a name is used once")

    (warning,) = handled(folder, "folder", refuse)
    assert warning.startswith("2 of the files in the folder of the run could not be kept, as 'report.md': a name is")


def test_of_many_files_some_are_named(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}").touch()
    assert "19 and 10 more" in handled(tmp_path, "", pytest.fail)[0]
    assert handled(tmp_path / "none", "", pytest.fail) == []


def test_what_outputs_may_be_is_said():
    with pytest.raises(UsageError, match="write outputs='folder'"):
        flow(outputs="all")(lambda: None)
