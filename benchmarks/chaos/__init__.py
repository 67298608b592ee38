"""Everything fails within one load of mixed traffic: `python -m benchmarks.chaos`."""
