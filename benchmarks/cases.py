"""Small models of other people's kinds: how often is an answer wrong, or an error another library's?

Each case builds a model that somebody has asked about, a few lines or a tiny one of transformers, and asserts the right answer,
found in another way, or a refusal that says what to type; see :mod:`benchmarks.strangers`. A case is wrong where another answer
or refusal came, and foreign where another library's error did. It takes half a minute.
"""

from collections import Counter

from benchmarks.strangers import CASES, later, outcome, silent, tracebacks, unhelpful
from crossexplain_book.bench import row_of

KINDS = (silent, unhelpful, tracebacks, later)  # importing them puts their cases on the list
UNITS = {"wrong": "cases in which an answer or a refusal is wrong", "foreign_errors": "cases with another library's error"}


def rows() -> list[dict]:
    """Return how many cases there are, and in how many of them something else came than what is right."""
    found = {name: outcome(function) for name, function in CASES.items()}
    print("\n".join(f"{name}: {what}" for name, what in found.items() if what != "right"))
    kinds = Counter(what.split(":")[0] for what in found.values())
    counts = {"listed": len(found), "wrong": kinds["wrong"], "foreign_errors": kinds["foreign"]}
    return [row_of(f"cases.{key}", [count], UNITS.get(key, "cases")) | {"n": len(found)} for key, count in counts.items()]
