"""Serves the web client: its built files, and to its page what a browser cannot find by itself."""

from kodo.web.server import DEFAULT_PORT, WebConfig, WebServer
from kodo.web.site import Site

__all__ = ["DEFAULT_PORT", "Site", "WebConfig", "WebServer"]
