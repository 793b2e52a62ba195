"""Metrics: each process counts in shared memory, and any of them can show the sums of all."""
