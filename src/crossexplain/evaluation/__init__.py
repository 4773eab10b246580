"""How good is an explanation: metrics with intervals, against a known truth and against baselines."""
