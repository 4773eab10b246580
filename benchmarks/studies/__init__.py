"""Studies: what a chapter shares with a benchmark or with tests, and what is no part of the helper package."""
