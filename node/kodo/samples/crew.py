"""Research Crew: two agents and any model that speaks the OpenAI chat API. Needs kodo's extra `crewai`.

The node's environment says which model where, and holds its key: `KODO_CREW_MODEL`, `KODO_CREW_BASE_URL`,
`KODO_CREW_API_KEY`. A caller may choose another model, and another endpoint, which then never gets the key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kodo.flow import flow
from kodo.p2p.errors import UsageError

__all__ = ["NO_KEY", "Endpoint", "crew", "endpoint_of"]

NO_KEY = "no-key"
"""What an endpoint gets that is not the node's own; servers without keys take any."""


class Endpoint(NamedTuple):
    """A model, where it is asked, and with which key."""

    model: str
    base_url: str
    key: str


def endpoint_of(model: str, base_url: str, environment: Mapping[str, str]) -> Endpoint:
    """Put together what the caller chose and what the node has.

    Raises:
        UsageError: neither says which model or where, or the URL is not a URL.
    """
    own = environment.get("KODO_CREW_BASE_URL", "")
    model, url = model or environment.get("KODO_CREW_MODEL", ""), base_url or own
    if not model or not url:
        raise UsageError("say model and base_url, or set KODO_CREW_MODEL and KODO_CREW_BASE_URL on the node")
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        named = None
    if not named:
        raise UsageError("base_url is a URL as https://models.example.com/v1")
    key = environment.get("KODO_CREW_API_KEY", "") if own and not base_url else ""
    return Endpoint(model, url, key or NO_KEY)


@flow(
    name="Research Crew",
    author="kodo",
    organization="kodo",
    release="1",
    tags=["sample", "crew"],
)
def crew(topic: str, model: str = "", base_url: str = "") -> Any:
    """Two agents gather what there is to know of a topic, and write a page about it.

    Args:
        topic: what the page is about.
        model: the model's name; the node's own by default.
        base_url: an OpenAI-compatible endpoint; the node's own by default. Another one never gets the node's key.
    """
    from crewai import LLM, Agent, Crew, Task

    place = endpoint_of(model, base_url, os.environ)
    llm = LLM(model=f"openai/{place.model}", base_url=place.base_url, api_key=place.key)
    researcher = Agent(
        role="Researcher", goal="gather what matters about {topic}", backstory="You look closely.", llm=llm
    )
    writer = Agent(
        role="Writer", goal="write clearly about {topic}", backstory="You leave out what is idle.", llm=llm
    )
    gather = Task(
        name="gather", description="Gather facts about {topic}.", expected_output="ten facts", agent=researcher
    )
    write = Task(
        name="write", description="Write a page about {topic}.", expected_output="Markdown", agent=writer,
        context=[gather],
    )  # fmt: skip
    return Crew(agents=[researcher, writer], tasks=[gather, write])
