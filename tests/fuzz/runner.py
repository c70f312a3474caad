"""Runs targets: batches of inputs, each made from the seed, the target's name and the batch's number alone.

So one input is found again without those before it in other targets: `--only NAME --batch N` with the seed that was
printed. Targets take turns by the processor time that they used, so that quick parsers get more inputs.
"""

from __future__ import annotations

import hashlib
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.fuzz.mutations import grown
from tests.fuzz.targets import Target
from tests.support.operations import operations

__all__ = ["BATCH", "Finding", "Tally", "fuzz", "report", "run_batch"]

BATCH = 200
"""Inputs of one batch, which share their reader's state."""
_COUNTED = 2
"""Inputs of a batch whose steps are counted: counting takes fifty times as long as reading."""
_KEPT = 5
"""Findings of a target that are kept; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that did what none may.

    Attributes:
        target: the parser's name.
        batch: the number of its batch.
        what: the error and where it was raised, or the steps.
        given: the input, cut.
    """

    target: str
    batch: int
    what: str
    given: str


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one target.

    Attributes:
        most: bytecodes for each byte of the input that cost most, of which 1,000 at least are counted.
    """

    inputs: int = 0
    taken: int = 0
    refused: int = 0
    batches: int = 0
    found: int = 0
    most: float = 0.0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another process counted of the same target."""
        for name in ("inputs", "taken", "refused", "batches", "found", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most = max(self.most, other.most)
        self.findings = (self.findings + other.findings)[:_KEPT]


def run_batch(target: Target, seed: int, batch: int, tally: Tally, *, count_steps: bool = True) -> None:
    """Make one batch of inputs and read them."""
    name = hashlib.sha256(f"{seed}/{target.name}/{batch}".encode()).digest()
    rng = Random(int.from_bytes(name, "big"))
    read = target.start()
    counted = BATCH - _COUNTED if count_steps else BATCH
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(BATCH):
            given = target.make(rng)
            if number >= counted and target.grows:
                given = grown(rng, given)
            _read(target, read, given, batch, tally, steps=number >= counted)
    tally.inputs += BATCH
    tally.batches += 1


def _read(
    target: Target, read: Callable[[Any], object], given: Any, batch: int, tally: Tally, *, steps: bool
) -> None:
    problem: list[BaseException] = []

    def once() -> None:
        try:
            read(given)
        except target.refuses as error:
            problem.append(error)

    try:
        if steps:
            _count(target, once, given, batch, tally)
        else:
            once()
    except Exception as error:
        _note(tally, Finding(target.name, batch, _where(error), repr(given)[:600]))
        return
    if problem:
        tally.refused += 1
    else:
        tally.taken += 1


def _count(target: Target, once: Callable[[], None], given: Any, batch: int, tally: Tally) -> None:
    size = len(given) if isinstance(given, (bytes, str)) else len(repr(given))
    count = operations(once)
    tally.most = max(tally.most, count / max(size, 1000))
    if count > target.free + target.steps * size:
        what = f"{count} steps for {size} bytes, more than {target.free} and {target.steps} a byte"
        _note(tally, Finding(target.name, batch, what, repr(given)[:600]))


def _note(tally: Tally, finding: Finding) -> None:
    tally.found += 1
    if len(tally.findings) < _KEPT and all(each.what != finding.what for each in tally.findings):
        tally.findings.append(finding)


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:200]} ({frame.filename.rpartition('/kodo/')[2]}:{frame.lineno})"


def fuzz(
    targets: Sequence[Target],
    seed: int,
    *,
    inputs: int | None = None,
    seconds: float | None = None,
    first: int = 0,
    step: int = 1,
    tell: Callable[[dict[str, Tally]], None] = lambda tallies: None,
) -> dict[str, Tally]:
    """Fuzz until so many inputs were read, or so many seconds have passed; give what became of them, by target.

    Args:
        first: the first batch of each target, and
        step: how far the next one is, so that several processes share the batches.
        tell: is called now and then.
    """
    tallies = {target.name: Tally() for target in targets}
    begin = told = time.monotonic()
    done = 0
    while targets and (inputs is None or done < inputs):
        now = time.monotonic()
        if seconds is not None and now - begin >= seconds:
            break
        if now - told >= 30:
            told = now
            tell(tallies)
        target = min(targets, key=lambda each: tallies[each.name].seconds)
        tally = tallies[target.name]
        before = time.process_time()
        # Tracing costs fifty times as much: one batch in eight has its steps counted.
        number = first + step * tally.batches
        run_batch(target, seed, number, tally, count_steps=number % 8 == 0)
        tally.seconds += time.process_time() - before
        done += BATCH
    return tallies


def report(tallies: dict[str, Tally]) -> Iterable[str]:
    """Give the lines of the table, and of what was found."""
    total = Tally()
    yield f"{'parser':<22}{'inputs':>12}{'taken':>12}{'refused':>12}{'found':>7}{'steps/byte':>12}"
    for name, tally in tallies.items():
        total.add(tally)
        yield f"{_row(name, tally)}{tally.most:>12.0f}"
    yield _row("all", total)
    for tally in tallies.values():
        for finding in tally.findings:
            yield f"FOUND {finding.target} (--only {finding.target!r} --batch {finding.batch}): {finding.what}"
            yield f"      {finding.given}"


def _row(name: str, tally: Tally) -> str:
    return f"{name:<22}{tally.inputs:>12,}{tally.taken:>12,}{tally.refused:>12,}{tally.found:>7}"
