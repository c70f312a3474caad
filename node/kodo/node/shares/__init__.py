"""Runs that are shared, and how much of them is shown."""
