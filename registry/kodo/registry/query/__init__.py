"""Searches and queries: parsed, held against rows, made into SQL. Pure."""
