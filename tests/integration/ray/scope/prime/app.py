"""Two entries of one app, one form, deployed by Ray Serve."""

import fastapi
import kodosumi.core as core
import uvicorn
from kodosumi.core import ServeAPI
from kodosumi.core import forms as F
from ray import serve

app = ServeAPI()

model = core.forms.Model(
    F.Markdown(
        """
        # Gaps between primes

        How often each gap comes in a range.
        """
    ),
    F.Break(),
    F.InputText(label="Start", name="start", value="0"),
    F.InputText(label="End", name="end", value="1000"),
    F.InputText(label="Tasks", name="tasks", value="2"),
    F.Submit("Submit"),
    F.Cancel("Cancel"),
)


def run(inputs: dict, tracer: core.Tracer):
    import prime.calculator as calculator

    start, end, tasks = (int(inputs.get(name, "").strip()) for name in ("start", "end", "tasks"))
    return calculator.distribution(start, end, tasks, tracer)


async def run_async(inputs: dict, tracer: core.Tracer):
    return run(inputs, tracer)


said = {
    "version": "0.1.0",
    "author": "ana@example.com",
    "organization": "Example",
    "tags": ["Test", "Ray"],
    "description": "Counts the gaps between primes.",
}


@app.enter(path="/", model=model, summary="Prime gaps", **said)
async def enter(request: fastapi.Request, inputs: dict):
    return core.Launch(request, "prime.app:run", inputs=inputs)


@app.enter(path="/async", model=model, summary="Prime gaps (async)", **said)
async def enter_async(request: fastapi.Request, inputs: dict):
    return core.Launch(request, "prime.app:run_async", inputs=inputs)


@serve.deployment
@serve.ingress(app)
class Primes:
    pass


fast_app = Primes.bind()


if __name__ == "__main__":
    uvicorn.run("prime.app:app", host="0.0.0.0", port=8004, reload=True)
