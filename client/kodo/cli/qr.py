"""Links as QR codes, drawn in a terminal. The only import of segno."""

from __future__ import annotations

import shutil

import segno

from kodo.p2p.errors import UsageError

__all__ = ["draw_code", "drawn_for"]

_QUIET = 4
"""Light modules around a code, so that cameras find it: ISO/IEC 18004 asks for four."""

_DARK = " "
_LIGHT = "█"
_HALVES = {(True, True): _DARK, (False, False): _LIGHT, (True, False): "▄", (False, True): "▀"}
"""By whether the upper and the lower module are dark: what is drawn is the light ground of a code."""


def draw_code(text: str) -> list[str]:
    """Return the lines of a QR code, two rows of modules a line.

    Raises:
        UsageError: the text is longer than a QR code holds (2,953 bytes).
    """
    try:
        # The least redundancy: a screen has no dirt, and fewer modules are larger ones.
        code = segno.make_qr(text, error="l", boost_error=False, mode="byte")
    except segno.DataOverflowError:
        raise UsageError("the link is too long for a QR code; copy it instead") from None
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_QUIET)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        "".join(_HALVES[upper, lower] for upper, lower in zip(rows[at], rows[at + 1], strict=True))
        for at in range(0, len(rows), 2)
    ]


def drawn_for(text: str) -> str:
    """Return a QR code for this terminal: the lines, in black and white whatever the terminal's colours are.

    Raises:
        UsageError: it does not fit; says how wide the terminal has to be.
    """
    lines = draw_code(text)
    columns = shutil.get_terminal_size().columns
    if len(lines[0]) > columns:
        raise UsageError(f"the QR code is {len(lines[0])} columns wide, and this terminal {columns}; widen it")
    # White ink on black ground, so that a terminal with a light ground shows it the same way.
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in lines)
