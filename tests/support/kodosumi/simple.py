"""The least that there is: no request, a sync entry, a class of functions of one name."""

from kodosumi.core import Launch, ServeAPI, response
from kodosumi.core import forms as F

app = ServeAPI(title="Simple")


def hello(inputs, tracer):
    """Greet."""
    tracer.text_sync("about to greet")
    tracer.html_sync("<b>soon</b>")
    tracer.action_sync({"does": "greet"})
    tracer.result_sync({"name": inputs["name"]})
    try:
        raise RuntimeError("no voice")
    except RuntimeError:
        tracer.warning_sync("hoarse", exc_info=True)
    return response.HTML(f"<h1>Hello {inputs['name']}</h1>")


@app.enter("/", F.Model(F.InputText(name="name", value="Ada"), F.Submit("Go")))
def enter(inputs, request):
    """Greet somebody."""
    return Launch(request, hello, inputs)


@app.enter("/again", F.Model(F.Submit("Go")), summary="Again")
def enter(inputs, request):  # noqa: F811
    return Launch(request, "simple.hello", {"name": "again"})


@app.enter("/nothing", F.Model(), summary="Nothing")
def nothing(inputs, request):
    return None


@app.enter("/missing", F.Model(), summary="Missing")
def missing(inputs, request):
    return Launch(request, "nowhere.app:run")


@app.get("/page")
def page():
    return "not a flow"
