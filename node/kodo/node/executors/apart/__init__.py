"""Runners under another account: the node's side, and the process of that account which has Ray and all its files."""
