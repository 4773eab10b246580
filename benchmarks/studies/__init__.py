"""Studies that a benchmark runs for hours and a chapter reads: the code that both share."""
