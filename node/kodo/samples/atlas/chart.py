"""The chart: the largest packages as bars, an SVG that is readable on a light and on a dark page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from kodo.samples.atlas.survey import PackageReport, shown

__all__ = ["chart"]

BARS = 15
WIDTH = 760
LEFT = 150
RIGHT = 120
TOP = 72
ROW = 28

STYLE = """\
  :root { color-scheme: light dark; }
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .note, .value { fill: #59636e; font-variant-numeric: tabular-nums; }
  .note { font-size: 12px; }
  .page { fill: #ffffff; }
  .bar { fill: #b6d4f5; }
  .branches { fill: #1f6feb; }
  .axis { stroke: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .value { fill: #9198a1; }
    .page { fill: #0d1117; }
    .bar { fill: #264466; }
    .branches { fill: #58a6ff; }
    .axis { stroke: #3d444d; }
  }
"""


def chart(label: str, packages: Sequence[PackageReport]) -> str:
    """Draw the largest packages: a wide bar for lines, a thin one inside it for branches, on the same scale."""
    packages = sorted(packages, key=lambda package: (-package.lines, package.name))
    drawn = packages[:BARS]
    height = TOP + ROW * len(drawn) + 26
    scale = (WIDTH - LEFT - RIGHT) / max([1, *(package.lines for package in drawn)])
    title = f"Code Atlas: {label}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label={quoteattr(title)}>',
        f"<style>\n{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="24" y="32">{escape(_short(title, 76))}</text>',
        f'<text class="note" x="24" y="53">Lines (wide) and branches (thin) of the {len(drawn)} largest of '
        f"{len(packages)} packages</text>",
    ]
    for number, package in enumerate(drawn):
        y = TOP + ROW * number
        name = shown(package.name)
        parts += [
            f"<g><title>{escape(name)}: {package.lines:,} lines, {package.functions:,} functions, "
            f"{package.branches:,} branches in {package.files:,} files</title>",
            f'<text x="{LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(_short(name, 18))}</text>',
            f'<rect class="bar" x="{LEFT}" y="{y + 3}" width="{package.lines * scale:.1f}" height="20" rx="3"/>',
            f'<rect class="branches" x="{LEFT}" y="{y + 10}" width="{package.branches * scale:.1f}" height="6" '
            f'rx="3"/>',
            f'<text class="value" x="{LEFT + package.lines * scale + 8:.1f}" y="{y + 17}">{package.lines:,}</text>',
            "</g>",
        ]
    bottom = TOP + ROW * len(drawn)
    parts += [f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"/>', "</svg>\n"]
    return "\n".join(parts)


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
