"""Who may do what: providers, users, roles, grants. Nodes and registries use it."""
