"""A person is asked twice; the second answer is judged."""

from fastapi import Request
from kodosumi.core import InputsError, Launch, ServeAPI, Tracer
from kodosumi.service.inputs.forms import Action, Cancel, Checkbox, InputText, Markdown, Model, Submit

app = ServeAPI()


@app.enter(
    "/",
    model=Model(InputText(label="Document", name="document", required=True), Submit("Start"), Cancel("Cancel")),
    summary="Review",
)
async def start(inputs: dict, request: Request) -> Launch:
    return Launch(request, "hitl:review", inputs=inputs, summary=f"Review of {inputs['document']}")


async def review(inputs: dict, tracer: Tracer):
    await tracer.debug("asking")
    choice = await tracer.lock("choice", data=inputs)
    approval = await tracer.lock("approval", data={**inputs, **choice}, timeout=60)
    return {"choice": choice, "approval": approval}


@app.lock("choice")
async def choose(data: dict):
    return Model(
        Markdown(f"How shall {data['document']} be read?"),
        Action(name="way", value="fast", text="At a glance"),
        Action(name="way", value="slow", text="Word for word"),
    )


@app.lock("approval")
def approve(data: dict):
    return Model(
        Markdown(f"# Approve {data['document']}?\n\nIt was read {data['way']}."),
        Checkbox(label="Approve", name="approve", option="It is right"),
        InputText(label="Comment", name="comment"),
        Submit("Send"),
    )


@app.lease("approval")
async def approved(inputs: dict, data: dict):
    if not inputs["approve"]:
        raise InputsError(approve="Approve it, or leave it open")
    return {"by": "a person", "way": data["way"], "comment": inputs["comment"]}
