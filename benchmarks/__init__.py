"""One measurement a file, each with a function ``rows``; what it shares with a chapter stands in :mod:`benchmarks.studies`."""
