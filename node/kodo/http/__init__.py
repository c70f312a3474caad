"""Connections of an HTTP server, bounded from the moment that they are accepted: registries, pages, metrics."""
