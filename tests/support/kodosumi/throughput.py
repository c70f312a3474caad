"""Numbers as texts, judged by the entry; many results and lines."""

import asyncio

import fastapi
import kodosumi.core as core
from kodosumi.core import forms as F

app = core.ServeAPI()


async def execute(inputs: dict, tracer: core.Tracer):
    for number in range(int(inputs["results"])):
        await tracer.markdown(f"result **{number}**")
        await asyncio.sleep(0)
    for number in range(int(inputs["stdios"])):
        print(f"line {number}")
    return core.response.Markdown(f"""
        # Final Result
        {inputs["results"]:g} results
        """)


def positive(inputs: dict, name: str, default: float, error: core.InputsError) -> float:
    text = inputs.get(name, "")
    if text == "":
        return default
    try:
        number = float(text)
        if number <= 0:
            raise ValueError
    except ValueError:
        error.add(**{name: "Must be a number above zero"})
        return default
    return number


@app.enter(
    path="/",
    model=core.forms.Model(
        F.Markdown("# Test Runner"),
        F.InputText(label="Results", name="results", placeholder="3"),
        F.InputText(label="Stdout", name="stdios", placeholder="30"),
        F.Submit("Submit"),
    ),
    summary="Throughput",
    description="Makes results and lines.",
    version="1.0.0",
    author="ana@example.com",
)
async def enter(request: fastapi.Request, inputs: dict):
    error = core.InputsError()
    results = positive(inputs, "results", 2, error)
    stdios = positive(inputs, "stdios", 3, error)
    if error.has_errors():
        raise error
    return core.Launch(request, execute, inputs={"results": results, "stdios": stdios})
