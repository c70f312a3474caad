"""Peers talk: identity, addresses, sessions, streams, calls and discovery. Knows nothing of flows."""
