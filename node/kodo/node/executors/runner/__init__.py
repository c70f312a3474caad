"""What runs in a runner's process, whatever started it. Knows nothing of Ray."""
