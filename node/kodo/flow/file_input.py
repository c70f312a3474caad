"""`File`: an input that is a file. Whoever launches the flow uploads it; the flow gets a path on its own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from kodo.protocol.uploads import UPLOAD_PATTERN

__all__ = ["File"]


class _FileForm:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_there, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        # The pattern keeps paths out: a caller must not name a file of the node's machine.
        return {"type": "string", "format": "file", "pattern": UPLOAD_PATTERN}


File = Annotated[Path, _FileForm()]
"""`def report(doc: File)`: a `Path` that can be read while the run lasts. Also `list[File]`, `File | None`."""


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path.name} is not there; upload it again")
    return path
