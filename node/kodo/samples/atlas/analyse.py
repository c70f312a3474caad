"""What one Python file is made of. Pure: bytes in, counts out; nothing of the file is ever executed.

Every count is one of the syntax tree, and can be checked by counting words in the text:

* `lines`: lines of text; `functions`: each `def`; `classes`: each `class`; `imports`: each `import` statement;
* `branches`: each `if`, `elif`, `for`, `while`, `except`, `case`, `and` and `or`, in comprehensions and guards too;
* a function is as long as the lines from its `def` to its last one, decorators not counted.
"""

from __future__ import annotations

import ast
import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["FileReport", "Function", "Import", "analyse", "analyse_batch", "count_lines"]

LONGEST_KEPT = 5
"""How many of a file's longest functions its report names; the depth view asks for all."""

_LOOPS_AND_CHOICES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
_NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop, ast.Pass)
_Def = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """One `def`. `name` is qualified within its file; branches of functions inside it are theirs, not its."""

    name: str
    line: int
    lines: int
    branches: int
    depth: int
    parameters: int
    documented: bool


class Import(NamedTuple):
    """One imported name: `from ..a import b` is level 2, module `a`, name `b`; `import a.b` has no name.

    `deferred` ones are inside a function, under `if TYPE_CHECKING` or under `if __name__ == "__main__"`: they cannot
    make a cycle when the module is imported.
    """

    level: int
    module: str
    name: str
    deferred: bool


@dataclass(frozen=True, slots=True)
class FileReport:
    """What is known of one file.

    Attributes:
        path: relative to the root.
        lines: lines of text.
        functions: number of them.
        classes: number of them.
        branches: as defined above.
        imports: import statements.
        imported: the names they import, without repetition.
        longest: its longest functions, the longest first.
        error: why it could not be parsed; then all but `lines` is zero.
    """

    path: str
    lines: int
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0
    imported: tuple[Import, ...] = ()
    longest: tuple[Function, ...] = ()
    error: str = ""


def count_lines(data: bytes) -> int:
    """The lines of a text; the last one counts whether or not it ends with a line end."""
    lines = data.count(b"\n")
    return lines + 1 if data and not data.endswith(b"\n") else lines


def analyse(path: str, data: bytes, keep: int = LONGEST_KEPT) -> FileReport:
    """Count what a file is made of; `keep` bounds how many functions are named. Never raises for what it holds."""
    lines = count_lines(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a file's author does with backslashes is not our news
            tree = ast.parse(data)
    except (SyntaxError, ValueError) as error:
        # The text of a syntax error may quote the file; its kind and place are enough.
        place = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return FileReport(path, lines, error=f"{type(error).__name__}{place}")
    except (RecursionError, MemoryError) as error:
        return FileReport(path, lines, error=f"{type(error).__name__}: nested too deeply")
    counts = _Counts()
    counts.read(tree)
    functions = sorted(
        (_function(node, name, branches, depth) for node, name, branches, depth in counts.functions),
        key=lambda function: (-function.lines, function.line),
    )
    return FileReport(
        path=path,
        lines=lines,
        functions=len(functions),
        classes=counts.classes,
        branches=counts.branches,
        imports=counts.imports,
        imported=tuple(dict.fromkeys(counts.imported)),
        longest=tuple(functions[:keep]),
    )


def analyse_batch(files: list[tuple[str, bytes | str]], keep: int = LONGEST_KEPT) -> list[FileReport]:
    """Analyse several files; text instead of bytes says why a file could not be read."""
    # A syntax tree is many small objects that all live until it is dropped: searching them for cycles, again and
    # again while it grows, took three quarters of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return [
            FileReport(path, 0, error=content) if isinstance(content, str) else analyse(path, content, keep)
            for path, content in files
        ]
    finally:
        if collecting:
            gc.enable()


@dataclass(slots=True)
class _Open:
    """A function whose body is being counted."""

    branches: int = 0
    depth: int = 0


class _Counts:
    """One pass over a tree, with a stack of its own: depth of nesting must not end in a recursion error."""

    def __init__(self) -> None:
        self.classes = 0
        self.branches = 0
        self.imports = 0
        self.imported: list[Import] = []
        self._functions: list[tuple[_Def, str, _Open]] = []

    @property
    def functions(self) -> Iterator[tuple[_Def, str, int, int]]:
        """Each `def` with its qualified name, its own branches and its depth of nesting."""
        return ((node, name, own.branches, own.depth) for node, name, own in self._functions)

    def read(self, tree: ast.Module) -> None:
        """Count `tree`; once only."""
        # Of each node: the names around it, the function it is in, how deep in that, whether imports are deferred.
        waiting: list[tuple[ast.AST, str, _Open, int, bool]] = [(tree, "", _Open(), 0, False)]
        while waiting:
            node, prefix, own, level, deferred = waiting.pop()
            branches = _branches(node)
            self.branches += branches
            own.branches += branches
            if isinstance(node, ast.Import):
                self.imports += 1
                self.imported += [Import(0, alias.name, "", deferred) for alias in node.names]
                continue
            if isinstance(node, ast.ImportFrom):
                self.imports += 1
                module = node.module or ""
                self.imported += [Import(node.level, module, alias.name, deferred) for alias in node.names]
                continue
            if isinstance(node, _FUNCTIONS):
                # Decorators, defaults and hints run where the function is defined, so they count there.
                inner = _Open()
                self._functions.append((node, prefix + node.name, inner))
                waiting += [(child, f"{prefix}{node.name}.", inner, 0, True) for child in node.body]
                outer = [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
                waiting += [(child, prefix, own, level, deferred) for child in outer]
                continue
            if isinstance(node, ast.ClassDef):
                self.classes += 1
                prefix = f"{prefix}{node.name}."
            elif isinstance(node, _NESTING):
                level += 1
                own.depth = max(own.depth, level)
                if isinstance(node, ast.If):
                    waiting.append((node.test, prefix, own, level, deferred))
                    later = deferred or _runs_elsewhere(node.test)
                    waiting += [(child, prefix, own, level, later) for child in node.body]
                    # An `elif` is an `if` inside an `else` to the parser, and beside the first one to people.
                    is_elif = len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
                    waiting += [(child, prefix, own, level - is_elif, deferred) for child in node.orelse]
                    continue
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, _LEAVES):
                    waiting.append((child, prefix, own, level, deferred))


def _branches(node: ast.AST) -> int:
    if isinstance(node, _LOOPS_AND_CHOICES):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return 1 + (node.guard is not None)
    return 0


def _function(node: _Def, name: str, branches: int, depth: int) -> Function:
    given = node.args
    return Function(
        name=name,
        line=node.lineno,
        lines=(node.end_lineno or node.lineno) - node.lineno + 1,
        branches=branches,
        depth=depth,
        parameters=len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs),
        documented=ast.get_docstring(node, clean=False) is not None,
    )


def _runs_elsewhere(test: ast.expr) -> bool:
    """`if TYPE_CHECKING:` and `if __name__ == "__main__":` do not run when a module is imported."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
    return name == "TYPE_CHECKING"
