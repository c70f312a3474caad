"""Code Atlas: a flow that reads a tree of Python source and reports what it is made of. Needs no model and no key."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from kodo.flow import action, flow, lock, output, progress, result
from kodo.samples.atlas.analyse import FileReport, analyse_batch
from kodo.samples.atlas.chart import chart
from kodo.samples.atlas.graph import shortest_cycle
from kodo.samples.atlas.parallel import in_parallel, workers
from kodo.samples.atlas.report import markdown, metrics_csv, summary
from kodo.samples.atlas.sources import Source, Tree, open_tree
from kodo.samples.atlas.survey import PackageReport, Survey, shown, survey

__all__ = ["atlas"]

BATCH_FILES = 40
BATCH_BYTES = 1 << 20
OFFERED = 30
"""Packages that the lock lets choose from: the largest."""
ALL_FUNCTIONS = 1_000_000


@flow(
    name="Code Atlas",
    author="kodo",
    organization="kodo",
    release="1.0.0",
    tags=["sample", "code", "python"],
)
async def atlas(
    root: Annotated[
        Path | None,
        Field(
            description="A folder or .zip of Python source on the node's machine, or an uploaded .zip (root=@FILE). "
            "Empty: the standard library of its Python."
        ),
    ] = None,
    jobs: Annotated[int, Field(ge=0, le=256, description="Ray tasks at a time. 0: one for each CPU.")] = 0,
    deep: Annotated[
        int, Field(ge=0, le=10, description="Packages to look into in depth by default. 0: do not ask.")
    ] = 3,
) -> str:
    """Read a tree of Python source and report what it is made of.

    Gives progress, an action for each step and a result for each package; asks which packages to look into in depth;
    writes `report.md`, `metrics.csv` and `chart.svg`.

    Raises:
        UsageError: `root` names nothing that can be read.
        CapacityError: it is too large.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        tree = await asyncio.to_thread(stack.enter_context, open_tree(None if root is None else str(root)))
        jobs = workers(jobs)
        files = len(tree.sources)
        await action("read", files=files, skipped=len(tree.skipped), jobs=jobs)
        reports = await _survey_files(tree, jobs)
        whole = survey(tree.sources, reports)
        await action("connect", modules=len(whole.graph), imports=sum(map(len, whole.graph.values())))
        await result(
            import_cycles=len(whole.circles),
            examples=[shortest_cycle(whole.graph, component) for component in whole.circles[:3]],
        )
        chosen = await _ask(whole, deep)
        in_depth = await _look_into(tree, chosen, jobs)
    await action("write")
    python = sysconfig.get_python_version()
    await output.write("report.md", markdown(tree.label, whole, in_depth, tree.skipped, python), "text/markdown")
    await output.write("metrics.csv", metrics_csv(whole), "text/csv")
    await output.write("chart.svg", chart(tree.label, whole.packages), "image/svg+xml")
    await progress(100, f"done in {time.monotonic() - started:.1f} s")
    return summary(tree.label, whole)


async def _survey_files(tree: Tree, jobs: int) -> list[FileReport]:
    """Read and count every file; a result for each package as soon as its last file is counted."""
    reports: list[FileReport] = []
    sums: PackageReport | None = None
    async with aclosing(_analysed(tree, tree.sources, jobs)) as analysed:
        async for batch in analysed:
            for report in batch:
                package = tree.sources[len(reports)].package
                if sums is None or sums.name != package:
                    await _tell(sums)
                    sums = PackageReport(package)
                sums.add(report)
                reports.append(report)
            # What comes after the counting is the last tenth.
            done, total = len(reports), len(tree.sources)
            await progress(round(90 * done / total, 1), f"counting in {shown(package)}", done=done, total=total)
    await _tell(sums)
    return reports


async def _tell(sums: PackageReport | None) -> None:
    if sums is not None:
        await result(
            package=shown(sums.name),
            files=sums.files,
            lines=sums.lines,
            functions=sums.functions,
            classes=sums.classes,
            branches=sums.branches,
            errors=sums.errors,
        )


async def _ask(whole: Survey, deep: int) -> list[str]:
    """Which packages to look into: a lock whose default are the largest ones."""
    offered = {shown(package.name): package.name for package in whole.packages[:OFFERED]}
    suggested = list(offered)[:deep]
    if not suggested:
        return []
    form = _form(list(offered), suggested)
    answer = await lock("Which packages shall be looked into in depth?", form, default=form())
    chosen = form.model_validate(answer).model_dump()["packages"]
    return [offered[name] for name in dict.fromkeys(chosen)]


def _form(offered: list[str], suggested: list[str]) -> type[BaseModel]:
    choice: Any = Literal[tuple(offered)]
    field: Any = Field(default=suggested, max_length=OFFERED, description="The largest packages, by lines.")
    return create_model("Packages", packages=(list[choice], field))


async def _look_into(tree: Tree, chosen: Sequence[str], jobs: int) -> dict[str, list[FileReport]]:
    """Read the chosen packages again, this time keeping every function."""
    found: dict[str, list[FileReport]] = {}
    for number, package in enumerate(chosen):
        await action("look into", package=shown(package))
        await progress(90 + 9 * number / len(chosen), f"looking into {shown(package)}")
        sources = [source for source in tree.sources if source.package == package]
        async with aclosing(_analysed(tree, sources, jobs, ALL_FUNCTIONS)) as analysed:
            found[package] = [report async for batch in analysed for report in batch]
    return found


async def _analysed(
    tree: Tree, sources: Sequence[Source], jobs: int, keep: int | None = None
) -> AsyncGenerator[list[FileReport], None]:
    def load(batch: Sequence[Source]) -> list[tuple[str, bytes | str]]:
        return [(source.path, _content(tree, source)) for source in batch]

    function = analyse_batch if keep is None else _analyse_all
    async with aclosing(in_parallel(function, load, _batches(sources), jobs)) as answers:
        async for answer in answers:
            yield answer


def _analyse_all(files: list[tuple[str, bytes | str]]) -> list[FileReport]:
    return analyse_batch(files, ALL_FUNCTIONS)


def _content(tree: Tree, source: Source) -> bytes | str:
    try:
        return tree.read(source.path)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _batches(sources: Sequence[Source]) -> list[Sequence[Source]]:
    """Cut into batches of so many files, fewer where they are large."""
    batches: list[list[Source]] = []
    room = 0
    for source in sources:
        if not batches or len(batches[-1]) == BATCH_FILES or source.size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(source)
        room -= source.size
    return list(batches)
