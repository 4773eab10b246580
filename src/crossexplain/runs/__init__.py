"""A whole data set explained: in parts that are written whole or not at all, by any number of processes.

``explain_dataset`` does the work, ``merge`` and ``read`` prove that every example is there once.
"""

from importlib import import_module

_HOME = {  # name -> the module that defines it
    "explain_dataset": "crossexplain.runs.work",
    "Explainable": "crossexplain.runs.explainer",
    "read": "crossexplain.runs.reading",
    "merge": "crossexplain.runs.reading",
    "Results": "crossexplain.runs.reading",
    "Entry": "crossexplain.runs.plan",
    "Source": "crossexplain.runs.plan",
    "SourceGone": "crossexplain.runs.plan",
    "Stopped": "crossexplain.runs.work",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"{__name__} has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOME[name]), name)
