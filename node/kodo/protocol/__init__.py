"""What a node and its clients say to each other: calls, events, manifests. Pure data, no I/O."""
