"""The registry's database: its tables, what is written, and by whom."""
