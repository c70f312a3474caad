"""Serves the web client: its built files, and to its page what a browser cannot find by itself.

`server` has what runs, `site` the files. Nothing is imported here: `port` is read by commands that serve no page.
"""

__all__: list[str] = []
