"""What an app written for kodosumi imports from `kodosumi.core`, on kodo.

Where flows are described and run, `import kodosumi` gives this, so that an unchanged app is a set of flows: each
`@app.enter` is one (`standin` says how). Code of kodo's own may import it from here.
"""

from __future__ import annotations

from kodo.flow.kodosumi import forms, response
from kodo.flow.kodosumi.app import ServeAPI, Templates
from kodo.flow.kodosumi.entry import Launch
from kodo.flow.kodosumi.errors import InputsError, KodosumiError
from kodo.flow.kodosumi.tracer import Tracer

__all__ = [
    "InputsError",
    "KodosumiError",
    "Launch",
    "ServeAPI",
    "Templates",
    "Tracer",
    "TracerMock",
    "forms",
    "response",
]

TracerMock = Tracer
"""Outside of a node a tracer prints what it is told, which is what tests of such apps use this for."""
