"""What running flows ask of their node: memory, and runs on other nodes."""
