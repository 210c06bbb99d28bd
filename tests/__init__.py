"""The tests, importable as `tests` from the root of the repository."""
