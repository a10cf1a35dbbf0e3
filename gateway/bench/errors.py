"""What keeps a benchmark from being run."""


class BenchError(Exception):
    """A benchmark cannot be run; its words are for people."""
