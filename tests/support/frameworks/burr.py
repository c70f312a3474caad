"""Burr: an application of one action, which asks no model."""

from burr.core import ApplicationBuilder, State, action

REQUIRES = ["apache-burr"]


@action(reads=[], writes=["answer"])
def answer(state: State) -> State:
    return state.update(answer="all is well")


def work(url):
    app = ApplicationBuilder().with_actions(answer).with_transitions().with_entrypoint("answer").build()
    _, _, state = app.run(halt_after=["answer"])
    return state["answer"]
