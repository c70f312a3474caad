"""What is over: kept, found, deleted."""
