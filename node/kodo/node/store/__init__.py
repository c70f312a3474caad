"""The node's database: the event log, what is read of it, and its followers."""
