"""Files come in, are read in both ways, and go out."""

import os
import tempfile
from pathlib import Path

from fastapi import Request
from kodosumi.core import Launch, ServeAPI, Tracer
from kodosumi.core import forms as F

app = ServeAPI()


@app.enter("/", F.Model(F.InputFiles(name="files", label="Files", multiple=True, required=True)), summary="Upload")
async def enter(inputs: dict, request: Request):
    return Launch(request, run, inputs=inputs)


async def run(inputs: dict, tracer: Tracer):
    fs = await tracer.fs()
    sizes = {each["path"]: each["size"] for each in await fs.ls("in")}
    texts = {}  # as in many apps, files are read in async code
    async for path in fs.download("in"):
        texts[os.path.basename(path)] = Path(path).read_text()  # noqa: ASYNC240
    (name,) = inputs["files"]
    async with fs.open(f"in/{name}") as file:
        whole = await file.read_all()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "upper").mkdir()  # noqa: ASYNC240
        Path(folder, "upper", name).write_bytes(whole.upper())  # noqa: ASYNC240
        await fs.upload(folder)
        listed = [each["path"] for each in await fs.ls("out")]
    await fs.remove(f"in/{name}")
    try:
        await fs.ls("in")
    except FileNotFoundError:
        gone = True
    await fs.close()
    return {"sizes": sizes, "texts": texts, "out": listed, "gone": gone}
