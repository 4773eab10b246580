"""Data sets that come with their ground truth, and the store that finds them."""
