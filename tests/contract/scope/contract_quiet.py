"""A module that changes nothing, beside one that does."""

from typing import Any

from contract_seen import seen as look

from kodo.flow import flow

with open("contract_prompts.txt") as file:
    prompt = file.read()


@flow
def seen() -> dict[str, Any]:
    print("of the run")
    return {**look(), "prompt": prompt}
