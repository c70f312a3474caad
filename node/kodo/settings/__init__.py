"""What can be set: one frozen model for each program, `client`, `node` and `registry`.

A setting has one name everywhere: `keep_runs` in `kodo.toml`, `KODO_KEEP_RUNS` in the environment, and `--keep-runs`
on the command line, where a command has a flag for it. In Python, the field of a duration or size ends with its unit:
`retention_s`, `quota_bytes`.
"""
