"""Flows for the tests of the page: long and short ones, one that asks, one that makes files, one that is hostile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from kodo.flow import File, emit, flow, lock, output, progress

MADE_BY = {"author": "tests@example.com", "organization": "kodo", "release": "1"}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Approval(BaseModel):
    """What a person is asked."""

    approved: bool
    why: str = ""


@flow(name="Tally", tags=["test"], **MADE_BY)
async def tally(n: int, ask: bool = False, pause_ms: float = 0) -> str:
    """Count, ask whether that will do, and write it down."""
    for number in range(n):
        await emit("result", {"i": number})
        if pause_ms:
            await asyncio.sleep(pause_ms / 1000)
        if number % 10 == 0:
            await progress(done=number + 1, total=n)
    if ask:
        answer = await lock("Is that enough?", Approval)
        if not answer.approved:
            raise ValueError(f"it is not enough: {answer.why}")
    await output.write("tally.txt", "".join(f"{number}\n" for number in range(n)))
    return f"# Counted to {n}\n\nAll of it is in *tally.txt*."


@flow(name="Gallery", **MADE_BY)
async def gallery() -> dict[str, object]:
    """Make a file of each kind that the page shows in place."""
    await output.write(
        "report.md", "# Report\n\nSome **bold** text.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<b>not bold</b>\n"
    )
    await output.write("data.json", '{"name": "Ada", "list": [1, 2, {"deep": true}]}')
    await output.write("table.csv", 'city,people\nUlm,127000\n"Bad, Homburg",55000\n')
    await output.write(
        "chart.svg",
        '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="40"><circle cx="20" cy="20" r="16"/></svg>',
    )
    await output.write("page.html", f"<!doctype html><h1>Hello</h1>{HOSTILE}")
    await output.write("hostile.md", f"{HOSTILE}\n\n[click](javascript:alert(1)) ![x](http://192.0.2.1/x.png)\n")
    await output.write("hostile.svg", f'<svg xmlns="http://www.w3.org/2000/svg">{HOSTILE.replace("src=x", "")}</svg>')
    return {"files": 7, "big": 2**60}


@flow(name=HOSTILE[:120], description=HOSTILE, tags=["<b>tag</b>"], **MADE_BY)
async def hostile(name: Annotated[str, Field(title=HOSTILE, description=HOSTILE)] = HOSTILE) -> str:
    """Say nothing but markup."""
    await emit("result", {HOSTILE: HOSTILE, "__proto__": {"polluted": True}, "constructor": "x"})
    await output.write("&lt;b onload=alert(1)&gt;.html", HOSTILE)
    await lock(HOSTILE, Approval, default={"approved": True, "why": HOSTILE})
    return HOSTILE


@flow(name="Large file", **MADE_BY)
async def large(mib: int = 64) -> str:
    """Make one file in which no chunk is like another."""
    await output.write("large.bin", b"".join(hashlib.sha256(str(n).encode()).digest() * 32768 for n in range(mib)))
    return "Made."


@flow(name="Many files", **MADE_BY)
async def files(count: int = 1000) -> str:
    """Make many small files."""
    for number in range(count):
        await output.write(f"part-{number:04}.txt", f"{number}\n")
    return f"Made {count} files."


@flow(name="Album", **MADE_BY)
async def album(photos: list[File]) -> dict[str, object]:
    """Say which files there are in the folder that the photos have in common."""
    folder = Path(os.path.commonpath([photo.parent for photo in photos]))
    names = [photo.relative_to(folder).as_posix() for photo in photos]
    return {"folder": folder.name, "names": " ".join(names), "bytes": sum(photo.stat().st_size for photo in photos)}


class Size(Enum):
    """How large."""

    SMALL = "small"
    LARGE = "large"


class Place(BaseModel):
    """Where."""

    city: str = Field(min_length=2)
    zip_code: int = Field(alias="zip", ge=0)


@flow(name="Nested form", **MADE_BY)
async def nested(
    title: Annotated[str, Field(min_length=3, title="Title", description="What it is called.")],
    size: Size,
    place: Place,
    stops: list[Place] = [],  # noqa: B006
    kinds: list[Literal["red", "green", "blue"]] = ["red"],  # noqa: B006
    limit: int | None = None,
    weight: float = 1.5,
    urgent: bool = False,
    day: date | None = None,
    notes: Annotated[str, Field(max_length=2000)] = "",
    extra: dict[str, int] = {},  # noqa: B006
    key: SecretStr | None = None,
    doc: File | None = None,
) -> dict[str, object]:
    """Take one of everything that a form can ask for."""
    return {
        "title": title,
        "size": str(size),
        "city": place.city,
        "stops": len(stops),
        "kinds": kinds,
        "limit": limit,
        "urgent": urgent,
        "extra": extra,
        "secret": len(key.get_secret_value()) if key else 0,
        "doc": len(doc.read_bytes()) if doc else None,
    }
