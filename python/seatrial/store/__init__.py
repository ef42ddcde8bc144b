"""Run directories: the whole truth about a run, written atomically and readable for good."""
