"""The calls, answered: one module for each group of ops. Which run a caller may see is decided in `sight` alone."""
