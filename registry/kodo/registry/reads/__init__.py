"""Pages of nodes and flows, read within a bound of work."""
