"""What all files of a tree make together. Pure: file reports in, sums and rankings out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kodo.samples.atlas.analyse import FileReport, Function
from kodo.samples.atlas.graph import Graph, cycles, import_graph
from kodo.samples.atlas.sources import Source

__all__ = ["TOP_LEVEL", "Located", "PackageReport", "Survey", "shown", "survey"]

TOP_LEVEL = "(top level)"
"""How the files of the root itself are called where packages are listed."""


def shown(package: str) -> str:
    """The package's name for people."""
    return package or TOP_LEVEL


@dataclass(slots=True)
class PackageReport:
    """Sums over one package's files."""

    name: str
    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0
    errors: int = 0

    def add(self, report: FileReport) -> None:
        """Count one more file."""
        self.files += 1
        self.lines += report.lines
        self.functions += report.functions
        self.classes += report.classes
        self.branches += report.branches
        self.imports += report.imports
        self.errors += bool(report.error)


@dataclass(frozen=True, slots=True)
class Located:
    """A function and the file that it is in."""

    path: str
    function: Function


@dataclass(frozen=True, slots=True)
class Survey:
    """The whole tree.

    Attributes:
        files: one report per source, in the order of the sources.
        sources: what was read.
        packages: by lines, the largest first.
        total: sums over everything.
        longest: the longest functions of the tree.
        graph: which module imports which when it is imported itself.
        circles: the groups of modules that import each other.
    """

    files: Sequence[FileReport]
    sources: Sequence[Source]
    packages: list[PackageReport]
    total: PackageReport
    longest: list[Located]
    graph: Graph = field(repr=False)
    circles: list[list[str]]


def survey(sources: Sequence[Source], files: Sequence[FileReport], keep: int = 15) -> Survey:
    """Sum up; `keep` bounds the longest functions (no more than a file's report names of each file)."""
    packages: dict[str, PackageReport] = {}
    total = PackageReport("total")
    for source, report in zip(sources, files, strict=True):
        packages.setdefault(source.package, PackageReport(source.package)).add(report)
        total.add(report)
    modules = {
        source.module: (source.path.endswith("__init__.py"), report.imported)
        for source, report in zip(sources, files, strict=True)
    }
    graph = import_graph(modules)
    return Survey(
        files=files,
        sources=sources,
        packages=sorted(packages.values(), key=lambda package: (-package.lines, package.name)),
        total=total,
        longest=longest(files, keep),
        graph=graph,
        circles=cycles(graph),
    )


def longest(files: Iterable[FileReport], keep: int) -> list[Located]:
    """The longest functions of some files."""
    located = [Located(report.path, function) for report in files for function in report.longest]
    return sorted(located, key=lambda item: (-item.function.lines, item.path, item.function.line))[:keep]
