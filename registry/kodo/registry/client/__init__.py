"""A registry's callers: nodes, clients, operators, other registries."""
