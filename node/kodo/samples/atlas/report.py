"""What Code Atlas writes: the report as Markdown, the metrics as CSV. Pure: a survey in, text out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from kodo.samples.atlas.analyse import FileReport
from kodo.samples.atlas.graph import Graph, shortest_cycle
from kodo.samples.atlas.survey import Located, PackageReport, Survey, shown

__all__ = ["markdown", "metrics_csv", "summary"]

CYCLES_SHOWN = 12
MODULES_SHOWN = 25
FUNCTIONS_SHOWN = 10

COLUMNS = [
    "path",
    "module",
    "package",
    "lines",
    "functions",
    "classes",
    "branches",
    "imports",
    "longest_function",
    "longest_function_lines",
    "error",
]

HOW_IT_IS_COUNTED = """\
*Lines* are lines of text. *Functions* are `def`s, *classes* are `class`es, *imports* are `import` statements.
*Branches* are the words `if`, `elif`, `for`, `while`, `except`, `case`, `and` and `or`, in comprehensions and guards
too. A function is as long as the lines from its `def` to its last one. Modules are in a *cycle* when each imports
the others, directly or not, while it is being imported itself; imports inside functions, under `TYPE_CHECKING` or
under `__name__ == "__main__"` do not count.
"""


def summary(label: str, survey: Survey) -> str:
    """The few lines that end the run."""
    total, largest = survey.total, survey.packages[0]
    return (
        f"# Code Atlas: {_escape(label)}\n\n"
        f"**{total.files:,}** files, **{total.lines:,}** lines, **{total.functions:,}** functions, "
        f"**{total.classes:,}** classes, **{total.branches:,}** branches in {len(survey.packages)} packages. "
        f"The largest is `{shown(largest.name)}` with {largest.lines:,} lines. "
        f"{len(survey.circles)} import cycles. {total.errors} files could not be parsed.\n"
    )


def markdown(
    label: str,
    survey: Survey,
    deep: Mapping[str, Sequence[FileReport]],
    skipped: Sequence[tuple[str, str]],
    python: str,
) -> str:
    """The whole report.

    Args:
        label: what was read.
        survey: all of it.
        deep: by package, in the order asked for: reports of its files that name every function.
        skipped: files left out, and why.
        python: the version whose grammar was used.
    """
    parts = [
        summary(label, survey),
        "![The largest packages](chart.svg)\n",
        "## Packages\n",
        _package_table(survey),
        "## Longest functions\n",
        _function_table(survey.longest),
        f"## Import cycles ({len(survey.circles)})\n",
        _cycles(survey.graph, survey.circles),
    ]
    for package, files in deep.items():
        parts += _chapter(survey, package, files)
    left_out = [(report.path, report.error) for report in survey.files if report.error] + list(skipped)
    if left_out:
        parts += [f"## Left out ({len(left_out)})\n", _table(["file", "why"], left_out)]
    parts += ["## How it is counted\n", HOW_IT_IS_COUNTED, f"Parsed with the grammar of Python {python}.\n"]
    return "\n".join(parts)


def metrics_csv(survey: Survey) -> str:
    """One row per file, with a header row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for source, report in zip(survey.sources, survey.files, strict=True):
        longest = report.longest[0] if report.longest else None
        writer.writerow(
            [
                report.path,
                source.module,
                source.package,
                report.lines,
                report.functions,
                report.classes,
                report.branches,
                report.imports,
                longest.name if longest else "",
                longest.lines if longest else 0,
                report.error,
            ]
        )
    return text.getvalue()


def _package_table(survey: Survey) -> str:
    def row(package: PackageReport, name: str) -> list[object]:
        per_hundred = 100 * package.branches / package.lines if package.lines else 0.0
        counts = [package.files, package.lines, package.functions, package.classes, package.branches]
        return [name, *counts, per_hundred]

    rows = [row(package, f"`{shown(package.name)}`") for package in survey.packages]
    rows.append(row(survey.total, "**all**"))
    header = ["package", "files", "lines", "functions", "classes", "branches", "branches per 100 lines"]
    return _table(header, rows)


def _function_table(located: Iterable[Located]) -> str:
    rows = [
        [
            f"`{item.function.name}`",
            f"`{item.path}:{item.function.line}`",
            item.function.lines,
            item.function.branches,
        ]
        for item in located
    ]
    return _table(["function", "where", "lines", "branches"], rows)


def _cycles(graph: Graph, circles: Sequence[Sequence[str]]) -> str:
    if not circles:
        return "None.\n"
    lines = []
    for component in circles[:CYCLES_SHOWN]:
        way = shortest_cycle(graph, component)
        lines.append(f"- {len(component)} modules, as {' → '.join(f'`{name}`' for name in [*way, way[0]])}")
    if len(circles) > CYCLES_SHOWN:
        lines.append(f"- … and {len(circles) - CYCLES_SHOWN} more")
    return "\n".join(lines) + "\n"


def _chapter(survey: Survey, package: str, files: Sequence[FileReport]) -> list[str]:
    by_path = {source.path: source.module for source in survey.sources if source.package == package}
    members = set(by_path.values())
    imported_by = dict.fromkeys(members, 0)
    for targets in survey.graph.values():
        for target in targets & members:
            imported_by[target] += 1
    largest = sorted(files, key=lambda report: (-report.lines, report.path))
    functions = [Located(report.path, function) for report in files for function in report.longest]
    branchiest = sorted(functions, key=lambda item: (-item.function.branches, item.path, item.function.line))
    lengths = sorted(item.function.lines for item in functions)
    documented = sum(item.function.documented for item in functions)
    facts = "No functions.\n"
    if functions:
        facts = (
            f"{len(functions):,} functions: half of them have at most {lengths[len(lengths) // 2]} lines, "
            f"nine of ten at most {lengths[int(0.9 * (len(lengths) - 1))]}; "
            f"{100 * documented / len(functions):.0f} % have a docstring; "
            f"the deepest nesting is {max(item.function.depth for item in functions)}, "
            f"the most parameters are {max(item.function.parameters for item in functions)}.\n"
        )
    rows = [
        [
            f"`{by_path[report.path]}`",
            report.lines,
            report.functions,
            report.branches,
            len(survey.graph[by_path[report.path]]),
            imported_by[by_path[report.path]],
        ]
        for report in largest[:MODULES_SHOWN]
    ]
    circles = [component for component in survey.circles if members & set(component)]
    more = f"… and {len(largest) - MODULES_SHOWN} more modules.\n" if len(largest) > MODULES_SHOWN else ""
    return [
        f"## In depth: `{shown(package)}`\n",
        facts,
        _table(["module", "lines", "functions", "branches", "imports here", "imported by"], rows),
        more,
        "### Most branches\n",
        _function_table(branchiest[:FUNCTIONS_SHOWN]),
        f"### Import cycles it is part of ({len(circles)})\n",
        _cycles(survey.graph, circles),
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = [list(row) for row in rows]
    if not rows:
        return "None.\n"
    numeric = [isinstance(cell, (int, float)) for cell in rows[0]]
    lines = [
        f"| {' | '.join(header)} |",
        f"|{'|'.join('---:' if right else '---' for right in numeric)}|",
    ]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else _escape(str(value))


def _escape(text: str) -> str:
    """Keep a name from ending its table cell or its line."""
    return text.replace("|", "\\|").replace("\r", " ").replace("\n", " ")
