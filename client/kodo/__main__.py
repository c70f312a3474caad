"""`python -m kodo` is `koco`."""

from kodo.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
