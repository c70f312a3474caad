"""Say what failed in the last run of the tests, and whether so little that it is run again: `failed.py AT_MOST`."""

import json
import sys
from pathlib import Path

LAST_FAILED = Path(__file__).resolve().parent.parent / ".pytest_cache" / "v" / "cache" / "lastfailed"


def main(at_most: int) -> int:
    """Print the tests that failed; 0 where they are one to `at_most`, else 1."""
    try:
        failed = sorted(json.loads(LAST_FAILED.read_text()))
    except (OSError, ValueError):
        failed = []
    print("\n".join(failed) or "The tests ended without naming one that failed.")
    if len(failed) > at_most:
        print(f"{len(failed)} tests failed: too many for an accident.")
    return 0 if 0 < len(failed) <= at_most else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
