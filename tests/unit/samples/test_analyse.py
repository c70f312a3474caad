"""What Code Atlas counts in one file, against counts made in other ways."""

from __future__ import annotations

import gc
import inspect
import io
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from kodo.samples.atlas.analyse import FileReport, Import, analyse, analyse_batch, count_lines

STDLIB = Path(sysconfig.get_path("stdlib"))
READ = ["asyncio", "collections", "email", "http", "json", "re", "tomllib", "xml"]
BRANCH_WORDS = ["if", "elif", "for", "while", "except", "and", "or"]


def files() -> list[Path]:
    return sorted(path for name in READ for path in (STDLIB / name).rglob("*.py"))


def words(data: bytes) -> tuple[Counter[str], bool]:
    """The keywords of a file, by its tokens; and whether f-strings, or the word `case`, may hide or feign some."""
    found: Counter[str] = Counter()
    unsure = False
    for token in tokenize.tokenize(io.BytesIO(data).readline):
        if token.type == tokenize.NAME:
            found[token.string] += 1
            unsure |= token.string == "case"
        elif token.type == tokenize.STRING and "f" in token.string.split("'")[0].split('"')[0].lower():
            unsure |= any(f" {word} " in token.string for word in BRANCH_WORDS)
    return found, unsure


def test_counts_of_the_standard_library_are_those_of_its_tokens() -> None:
    sure = 0
    for path in files():
        data = path.read_bytes()
        report = analyse(str(path), data)
        found, unsure = words(data)
        assert not report.error
        assert report.functions == found["def"], path
        assert report.classes == found["class"], path
        assert report.imports == found["import"], path
        if not unsure:
            assert report.branches == sum(found[word] for word in BRANCH_WORDS), path
            sure += 1
    assert sure > 80


def test_lines_of_the_standard_library_are_those_a_reader_counts() -> None:
    for path in files():
        with path.open("rb") as file:
            assert count_lines(path.read_bytes()) == sum(1 for _ in file), path


def test_lengths_of_functions_are_those_of_their_source() -> None:
    import json.decoder
    import json.encoder

    for module in (json.decoder, json.encoder):
        path = Path(str(module.__file__))
        named = {item.name: item for item in analyse(path.name, path.read_bytes(), 1000).longest}
        for name in ("JSONDecoder.decode", "JSONEncoder.iterencode", "py_scanstring", "_make_iterencode"):
            if name in named:
                target = module
                for part in name.split("."):
                    target = getattr(target, part)
                assert named[name].lines == len(inspect.getsourcelines(target)[0]), name
                assert named[name].line == inspect.getsourcelines(target)[1]


def one(text: str, keep: int = 100) -> FileReport:
    return analyse("a.py", text.encode(), keep)


@pytest.mark.parametrize(
    ("text", "branches"),
    [
        ("if a: pass\nelif b: pass\nelse: pass", 2),
        ("x = a if b else c", 1),
        ("for a in b: pass\nelse: pass", 1),
        ("while a: pass", 1),
        ("try: pass\nexcept A: pass\nexcept B: pass\nfinally: pass", 2),
        ("x = a and b and c or d", 3),
        ("[x for x in y if x if not x]", 3),
        ("{a: b for a in c for b in d}", 2),
        ("match a:\n case 1: pass\n case x if x > 2: pass", 3),
        ("f'{a if b else c}'", 1),
        ("assert a, b", 0),
        ("with a: pass", 0),
    ],
)
def test_branches(text: str, branches: int) -> None:
    assert one(text).branches == branches


def test_functions_are_named_by_where_they_are_and_own_their_branches() -> None:
    report = one(
        "class A:\n"
        "    def f(self, x, /, y, *, z):\n"
        "        '''Doc.'''\n"
        "        if x:\n"
        "            def inner():\n"
        "                return 1 if y else 2\n"
        "        for a in b:\n"
        "            if a:\n"
        "                pass\n"
        "            elif b:\n"
        "                pass\n"
        "async def g(a=1 if b else 2): pass\n"
    )
    named = {item.name: item for item in report.longest}
    assert list(named) == ["A.f", "A.f.inner", "g"]
    assert named["A.f"][1:] == (2, 10, 4, 2, 4, True)
    assert named["A.f.inner"][1:] == (5, 2, 1, 0, 0, False)
    assert named["g"][1:] == (12, 1, 0, 0, 1, False)
    assert report.branches == 6


def test_decorators_do_not_make_a_function_longer() -> None:
    assert one("@a\n@b\ndef f():\n    pass\n").longest[0][1:3] == (3, 2)


def test_imports_know_whether_they_wait() -> None:
    report = one(
        "import a.b as c, d\n"
        "from ..e import f, g\n"
        "from . import h\n"
        "def x():\n    import i\n"
        "if TYPE_CHECKING:\n    import j\nelse:\n    import k\n"
        "if typing.TYPE_CHECKING:\n    import l\n"
        "if __name__ == '__main__':\n    import m\n"
        "try:\n    import n\nexcept E:\n    import o\n"
        "class X:\n    import p\n"
        "import d\n"
    )
    assert set(report.imported) == {
        Import(0, "a.b", "", False),
        Import(0, "d", "", False),
        Import(2, "e", "f", False),
        Import(2, "e", "g", False),
        Import(1, "", "h", False),
        Import(0, "i", "", True),
        Import(0, "j", "", True),
        Import(0, "k", "", False),
        Import(0, "l", "", True),
        Import(0, "m", "", True),
        Import(0, "n", "", False),
        Import(0, "o", "", False),
        Import(0, "p", "", False),
    }
    assert len(report.imported) == 13
    assert report.imports == 12


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"x = 1\ny = (\n", "SyntaxError in line 2"),
        (b"a\0b", "Error"),  # a ValueError in 3.11, a SyntaxError later
        (b"# coding: nonsense\n", "SyntaxError"),
        (b"(" * 5000, "SyntaxError in line 1"),
        (b"x = " + b"-" * 200_000 + b"1", "Error"),  # which one depends on how deep the parser goes
    ],
)
def test_what_cannot_be_parsed_is_reported_with_its_lines(data: bytes, error: str) -> None:
    report = analyse("a.py", data)
    assert error in report.error
    assert report == FileReport("a.py", count_lines(data), error=report.error)


def test_a_syntax_error_does_not_quote_the_file() -> None:
    assert "secret" not in analyse("a.py", b"secret secret = 1").error


def test_an_encoding_that_a_file_declares_is_used() -> None:
    assert analyse("a.py", "# coding: latin-1\ndef café(): pass\n".encode("latin-1")).longest[0].name == "café"


@pytest.mark.parametrize(("data", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\n\n", 2), (b"a\r\nb", 2)])
def test_lines(data: bytes, lines: int) -> None:
    assert count_lines(data) == lines


def test_only_the_longest_functions_are_named() -> None:
    text = "".join(f"def f{n}():\n" + "    pass\n" * n for n in range(1, 9))
    assert [item.name for item in one(text, 3).longest] == ["f8", "f7", "f6"]


def test_a_batch_keeps_its_order_and_says_what_could_not_be_read() -> None:
    reports = analyse_batch([("a.py", b"import b"), ("b.py", "gone"), ("c.py", b"")])
    assert [(item.path, item.imports, item.error) for item in reports] == [
        ("a.py", 1, ""),
        ("b.py", 0, "gone"),
        ("c.py", 0, ""),
    ]
    assert gc.isenabled()
