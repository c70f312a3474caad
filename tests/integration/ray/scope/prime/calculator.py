"""Gaps between primes, by Ray tasks that tell how far they are."""

from collections import Counter
from itertools import pairwise

import ray
from kodosumi.core import Tracer


def gaps(start: int, end: int) -> Counter[int]:
    """Count the gaps between neighbouring primes."""
    primes = [n for n in range(max(start, 2), end) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return Counter(after - before for before, after in pairwise(primes))


@ray.remote(num_cpus=0.25)
def count(start: int, end: int, tracer: Tracer) -> Counter[int]:
    """Count in one range."""
    tracer.markdown_sync(f"from {start} to {end}")
    return gaps(start, end)


def distribution(start: int, end: int, tasks: int, tracer: Tracer) -> dict[str, int]:
    """Count in ranges at once."""
    size = -(-(end - start) // tasks)
    found: Counter[int] = Counter()
    waiting = [count.remote(at, min(at + size, end), tracer) for at in range(start, end, size)]
    while waiting:
        done, waiting = ray.wait(waiting)
        found.update(ray.get(done[0]))
        print(f"{len(waiting)} ranges left")
    return {str(gap): found[gap] for gap in sorted(found)}
