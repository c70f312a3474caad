"""Which module imports which, and where that goes in circles. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from kodo.samples.atlas.analyse import Import

__all__ = ["Graph", "cycles", "import_graph", "shortest_cycle"]

Graph = dict[str, set[str]]
"""For each module those that it imports, within the tree only."""


def import_graph(modules: Mapping[str, tuple[bool, Iterable[Import]]]) -> Graph:
    """Connect modules by what they import when they are imported themselves (deferred imports do not count).

    Args:
        modules: by dotted name: whether it is a package's `__init__`, and what it imports.
    """
    graph: Graph = {name: set() for name in modules}
    for name, (is_package, imports) in modules.items():
        for item in imports:
            target = None if item.deferred else _target(modules, name, is_package, item)
            if target is not None and target != name:
                graph[name].add(target)
    return graph


def cycles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one module, each sorted, the largest first.

    Tarjan's algorithm with a stack of its own: a long chain of imports must not end in a recursion error.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    path.append(target)
                    on_path.add(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in on_path:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    at = path.index(node)
                    component = path[at:]
                    del path[at:]
                    on_path.difference_update(component)
                    if len(component) > 1:
                        found.append(sorted(component))
    return sorted(found, key=lambda component: (-len(component), component))


def shortest_cycle(graph: Graph, component: Iterable[str]) -> list[str]:
    """One shortest way round through the first module of a component: `[a, b, c]` stands for a → b → c → a."""
    members = set(component)
    start = min(members)
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        for target in sorted(graph[node] & members):
            if target == start:
                way = [node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target not in came_from:
                came_from[target] = node
                waiting.append(target)
    return []


def _target(modules: Mapping[str, object], name: str, is_package: bool, item: Import) -> str | None:
    """The module of the tree that an import loads: the longest known one of its dotted name."""
    parts: list[str] = []
    if item.level:
        parts = name.split(".")
        up = item.level - 1 if is_package else item.level
        if up > len(parts):
            return None
        parts = parts[: len(parts) - up]
    parts += item.module.split(".") if item.module else []
    # `from a import b` loads the module a.b where there is one, else b is a name inside of a.
    full = [*parts, item.name] if item.name and item.name != "*" else parts
    while full:
        candidate = ".".join(full)
        if candidate in modules:
            return candidate
        full = full[:-1]
    return None
