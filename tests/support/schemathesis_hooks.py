"""What schemathesis has to be told: how the bodies of this API, which are bytes, get on the wire."""

import schemathesis


@schemathesis.serializer("application/msgpack")
def as_it_is(context, value):
    """Send bytes as they are, and anything else as text: the registry has to refuse both."""
    return value if isinstance(value, bytes) else str(value).encode()
