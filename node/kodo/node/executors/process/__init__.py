"""Runners that are plain processes, without Ray."""
