"""Inputs of a launch: from words, a file and the person at the terminal; files among them are uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client, FlowOnNode

__all__ = ["given_inputs", "upload_files"]


async def given_inputs(
    context: Context,
    name: str,
    schema: Any,
    *,
    words: list[str],
    file: str | None,
    ask: bool,
    texts: list[str] | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the inputs that words and a file give.

    Args:
        ask: whether required ones that are missing are asked for.
        texts: words that are taken as they are written.
        known: inputs of which neither says anything else.
    """
    from kodo.cli.forms import fill_missing, missing_inputs
    from kodo.cli.secret import secret_values
    from kodo.cli.values import name_files, parse_assignments, read_inputs_file
    from kodo.client.inputs import to_inputs

    values = dict(known or {})
    values |= name_files(to_inputs(read_inputs_file(file), schema), schema) if file is not None else {}
    values |= parse_assignments(words, schema, await secret_values(context, words, schema), texts or [])
    if ask and context.interactive and missing_inputs(schema, values):
        from kodo.cli.terminal import ask_line

        context.say(f"{name} needs:")
        values = await fill_missing(schema, values, ask_line, context.say)
    return values


async def upload_files(context: Context, client: Client, found: FlowOnNode, values: dict[str, Any]) -> dict[str, Any]:
    """Upload the files among the inputs, with a progress bar."""
    from kodo.cli.transfer_bars import bars
    from kodo.client.upload import files_in, upload_inputs

    if not files_in(values):
        return values
    context.farewell = "what was uploaded is kept for a day; the same command resumes the upload"
    with bars(context) as on_progress:
        patience = client.settings.patience_s
        filled = await upload_inputs(found.remote, values, patience=patience, on_progress=on_progress)
    context.farewell = None
    return filled
