"""The life of a run, from launch to its last event."""
