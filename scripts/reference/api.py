"""Pages of a library, from its public names: their signatures and docstrings (Google style)."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, get_origin

__all__ = ["describe"]

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):\s*\Z")
_ENTRY = re.compile(r"(\*{0,2}[\w.]+(?:, [\w.]+)*): (.*)\Z", re.DOTALL)
LINE = 90
"""Longest signature on one line."""
_TITLES = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
}


def describe(module_name: str, also: tuple[str, ...] = ()) -> str:
    """Return the Markdown of all public names of a module.

    Args:
        also: names of modules whose public names follow under a heading of their own.
    """
    module = importlib.import_module(module_name)
    inner = [getattr(module, name) for name in module.__all__]
    modules = [each for each in inner if isinstance(each, ModuleType)] + [importlib.import_module(n) for n in also]
    parts = [_entry(name, getattr(module, name), "##", module) for name in module.__all__]
    for each in modules:
        parts.append(f"## {each.__name__}\n\n{markdown(inspect.getdoc(each) or '')}")
        parts += [_entry(name, getattr(each, name), "###", each) for name in each.__all__]
    return "\n\n".join(part for part in parts if part)


def _entry(name: str, found: Any, heading: str, module: ModuleType) -> str:
    if isinstance(found, ModuleType):
        return ""
    if get_origin(found) is Annotated:
        return f"{heading} {name}\n\n{_comment(name, found, module)}"
    if inspect.isclass(found):
        return "\n\n".join(_class(name, found, heading))
    if callable(found):
        kind = "async " if inspect.iscoroutinefunction(found) else ""
        return f"{heading} {name}\n\n```text\n{kind}{name}{_signature(found)}\n```\n\n{_doc(found)}"
    return f"{heading} {name}\n\n{_comment(name, found, module)}"


def _comment(name: str, found: Any, module: ModuleType) -> str:
    """Return the text below the assignment of a name, in the module that assigns it."""
    for each in [module, *(sys.modules[n] for n in sorted(sys.modules) if n.startswith(f"{module.__name__}."))]:
        body = ast.parse(inspect.getsource(each)).body
        for statement, after in pairwise(body):
            targets = [
                ast.unparse(each)
                for each in getattr(statement, "targets", [getattr(statement, "target", None)])
                if each
            ]
            if name in targets and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return markdown(inspect.cleandoc(str(after.value.value)))
    return _doc(type(found))


def _class(name: str, found: type, heading: str) -> Iterator[str]:
    shown = "" if issubclass(found, BaseException) or not _is_made_by_callers(found) else _signature(found)
    yield f"{heading} {name}\n\n```text\nclass {name}{shown}\n```\n\n{_doc(found)}"
    for member, value in sorted(vars(found).items(), key=lambda item: _line(item[1])):
        if member.startswith("_"):
            continue
        if isinstance(value, property) and inspect.getdoc(value):
            yield f"**`{member}`** (attribute) · {_doc(value)}"
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if inspect.isfunction(function) and inspect.getdoc(function):
            kind = "async " if inspect.iscoroutinefunction(function) else ""
            yield f"```text\n{kind}{name}.{member}{_signature(function, bound=True)}\n```\n\n{_doc(function)}"


def _is_made_by_callers(found: type) -> bool:
    return "__init__" in vars(found) and bool(inspect.getdoc(vars(found)["__init__"]))


def _line(value: Any) -> int:
    """Return where a member is defined, so that members stand in the order of the source."""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return code.co_firstlineno if code else 0


def _signature(found: Any, *, bound: bool = False) -> str:
    """Return a signature as it is written, on several lines where one is too long."""
    signature = inspect.signature(found)
    texts = list(_parameters(list(signature.parameters.values())[1 if bound else 0 :]))
    answer = signature.return_annotation
    arrow = "" if answer is signature.empty or answer in (None, "None") else f" -> {_annotation(answer)}"
    line = f"({', '.join(texts)}){arrow}"
    return line if len(line) <= LINE else "(\n" + "".join(f"    {each},\n" for each in texts) + f"){arrow}"


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Return the texts of parameters, with `/` and `*` between them."""
    before: Any = None
    for each in parameters:
        if before is each.POSITIONAL_ONLY and each.kind is not before:
            yield "/"
        if each.kind is each.KEYWORD_ONLY and before not in (each.KEYWORD_ONLY, each.VAR_POSITIONAL):
            yield "*"
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        kind = "" if each.annotation is each.empty else f": {_annotation(each.annotation)}"
        yield f"{stars}{each.name}{kind}{_default(each.default)}"
        before = each.kind
    if before is inspect.Parameter.POSITIONAL_ONLY:
        yield "/"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return ""
    # What stands for "not given", or is made for each call, says nothing to a reader.
    return " = …" if repr(default).startswith("<") else f" = {default!r}"


def _doc(found: Any) -> str:
    return markdown(inspect.getdoc(found) or "")


def markdown(doc: str) -> str:
    """Return a docstring as Markdown: its sections as lists, its indented blocks as code."""
    lines = doc.splitlines()
    parts: list[str] = []
    text: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if section := _SECTION.match(line):
            body, index = _indented(lines, index + 1)
            parts += ["\n".join(text), _section(section[1], body)]
            text = []
            continue
        if line.startswith("    ") and (not text or not text[-1]):
            body, index = _indented(lines, index)
            text += ["```python", *textwrap.dedent("\n".join(body)).rstrip().splitlines(), "```", ""]
            continue
        text.append(line)
        index += 1
    return "\n\n".join(part.strip("\n") for part in [*parts, "\n".join(text)] if part.strip())


def _indented(lines: list[str], index: int) -> tuple[list[str], int]:
    body = []
    while index < len(lines) and (not lines[index].strip() or lines[index].startswith(" ")):
        body.append(lines[index])
        index += 1
    return body, index


def _section(title: str, body: list[str]) -> str:
    entries: list[str] = []
    for line in textwrap.dedent("\n".join(body)).strip().splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        elif line.strip():
            entries.append(line.strip())
    if title in ("Returns", "Yields"):
        return f"*{_TITLES[title]}* {' '.join(entries)}"
    items = [
        f"- `{entry[1]}`: {entry[2]}" if (entry := _ENTRY.match(text)) else f"- {text}" for text in entries if text
    ]
    return f"*{_TITLES[title]}*\n\n" + "\n".join(items)
