"""`python -m kodo` is `koco`."""

from kodo.cli.main import main

main()
