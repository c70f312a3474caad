"""Every kind of field; what the app gets of each."""

from fastapi import Request
from kodosumi.core import Launch, ServeAPI
from kodosumi.core import forms as F

app = ServeAPI()


@app.enter(
    "/",
    model=F.Model(
        F.HTML("<h1>All <b>fields</b></h1>"),
        F.InputText(name="text", label="Text", value="a", pattern="[a-z]+"),
        F.InputPassword(name="password", label="Password", min_length=3),
        F.InputNumber(name="number", label="Number", value="2.5", min_value=1, max_value=9),
        F.InputNumber(name="count", label="Count", step=1, required=True),
        F.HR(),
        F.InputArea(name="area", label="Area", rows=5, max_length=100),
        F.InputDate(name="date", label="Date"),
        F.InputTime(name="time", label="Time"),
        F.InputDateTime(name="moment", label="Moment", required=True),
        F.Checkbox(name="checked", label="Checked", option="yes", value=True),
        F.Select(
            name="choice",
            label="Choice",
            option=[F.InputOption(name="a", label="First"), F.InputOption(name="b", label="b")],
        ),
        F.Errors(),
        F.Submit("Submit"),
        F.Action(name="way", value="other", text="Another way"),
    ),
    summary="All fields",
)
def enter(inputs: dict, request: Request):
    return Launch(request, echo, inputs=inputs)


def echo(inputs: dict):
    return inputs
