"""What a node or registry tells a monitoring system: that it is well, and counts."""
