"""What flows are run by. Authors import `kodo.flow` alone; names here may change at any time."""
