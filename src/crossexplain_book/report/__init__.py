"""The report on a run: one page that needs no other file, or a page about two runs side by side.

A page without the data holds numbers alone, since results keep no inputs; with it the examples that tell most are read anew.
The command is in ``command``, the function behind it in ``writer``, what is computed in ``measures``.
"""
