"""Launches that are checked before they are stored: by whoever calls, or by a schedule."""
