"""Flows run: catalog, Ray, event log, locks, outputs, access, announcing."""
