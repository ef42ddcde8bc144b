"""Statistics without I/O and without a clock: intervals, comparisons, validity."""
