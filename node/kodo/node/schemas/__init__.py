"""Values against JSON Schemas."""
