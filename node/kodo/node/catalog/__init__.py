"""What a node offers, and tells registries of it."""
