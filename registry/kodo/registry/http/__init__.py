"""A registry over HTTP: routes, callers, connections."""
